"""Exported graphs give the model's own numbers at any batch size and length; predictions go elsewhere unchanged."""

import json
import xml.etree.ElementTree as ET

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from conftest import make_folder

from backtal import BackTALModel, BackTALOutput, ConfigError, DataError, Localization, ModelConfig, Segment, localize
from backtal.cli import main
from backtal.data.datasets import DatasetFolder
from backtal.interop.export import METADATA, export, open_onnx, open_torch
from backtal.segments.predictions import label_studio_tasks, to_pandas, write_csv
from backtal.segments.segments import write_predictions
from backtal.settings.presets import recipe

LABELS = ("jump", "run", "throw")
SIZES = {"feature_dim": 12, "labels": LABELS, "hidden_dim": 16, "filter_dim": 8, "embedding_dim": 4}
CONFIGS = {
    "compact": {"kernel_size": 9, "standardize": True, "embedding_hidden_dim": 4, "topk_ratio": 1 / 12},
    "released": {"layout": "channel_blocks", "embedding_hidden_dim": 4, "topk_ratio": 0.6},
    "paper": {},
    "plain convolutions": {"affinity": False, "kernel_size": 1, "num_layers": 3},
}


def make(name: str) -> BackTALModel:
    model = BackTALModel(ModelConfig(**SIZES, **CONFIGS[name])).eval()
    if model.config.standardize:
        model.set_feature_statistics(torch.randn(12), torch.rand(12) + 0.5)
    return model


@pytest.fixture(scope="module", params=[*((c, "onnx") for c in CONFIGS), ("compact", "torch")], ids="-".join)
def exported(request, tmp_path_factory):
    name, form = request.param
    if form == "onnx":
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnxscript")
    torch.manual_seed(0)
    model = make(name)
    path = tmp_path_factory.mktemp("export") / "model"
    written = export(model, path, form)
    assert written.difference < 1e-4
    return model, path, form, (open_onnx if form == "onnx" else open_torch)(path)


@pytest.mark.slow
def test_twenty_random_shapes(exported):
    model, _, _, run = exported
    rng = np.random.default_rng(1)
    shapes = {(int(rng.integers(1, 9)), int(rng.integers(model.config.kernel_size, 400))) for _ in range(20)}
    shapes |= {(1, model.config.kernel_size), (1, 2000)}
    for batch, length in shapes:
        features = rng.standard_normal((batch, 12, length)).astype(np.float32)
        lengths = rng.integers(1, length + 1, batch)
        found = dict(zip(model.exports, run(features, lengths), strict=True))
        with torch.inference_mode():
            output = model(torch.from_numpy(features), torch.from_numpy(lengths))
        np.testing.assert_allclose(found["scores"], output.scores, atol=1e-4)
        np.testing.assert_allclose(found["cas"], output.cas, atol=1e-4)
        np.testing.assert_allclose(found["foreground"], output.foreground, atol=1e-4)
        np.testing.assert_allclose(found["magnitude"][:, 0], output.first_layer.norm(dim=1), atol=1e-4)


def test_what_is_needed_for_segments_travels_along(exported):
    _, path, form, _ = exported
    if form == "onnx":
        import onnx

        text = {entry.key: entry.value for entry in onnx.load(path).metadata_props}[METADATA]
    else:
        files = {METADATA: ""}
        torch.export.load(path, extra_files=files)
        text = files[METADATA]
    assert json.loads(text)["model"]["labels"] == list(LABELS)
    assert "thresholds" in json.loads(text)["localization"]


@pytest.mark.slow
def test_the_same_segments(tmp_path):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    folder = DatasetFolder(make_folder(tmp_path / "data"))
    released = recipe("thumos14-released").with_settings(["temporal_length=null", "hidden_dim=8", "filter_dim=4"])
    config = ModelConfig(feature_dim=8, labels=folder.labels, hidden_dim=8, layout="channel_blocks")
    model = BackTALModel(config, released.localization)
    run = open_onnx(export(model, tmp_path / "model.onnx").path)
    for video in folder.annotations.videos.values():
        features = folder.features(video)
        lengths = torch.tensor([features.axis.length])
        scores, cas, foreground, magnitude = map(
            torch.from_numpy, run(features.features[None].numpy(), lengths.numpy())
        )
        output = BackTALOutput(scores, cas, foreground, torch.empty(0), magnitude, lengths)
        found = localize(output, [features.axis], folder.labels, model.localization, [video.video_id])[0]
        expected = model.localize(features)
        assert [(s.start, s.end, s.label) for s in found] == [(s.start, s.end, s.label) for s in expected]
        np.testing.assert_allclose([s.score for s in found], [s.score for s in expected], atol=1e-4)


def test_the_model_stays_as_it_is(tmp_path):
    model = make("compact").train()
    export(model, tmp_path / "m.pt2", "torch")
    assert model.training
    with pytest.raises(ConfigError, match="known are onnx, torch"):
        export(model, tmp_path / "m.tf", "tensorflow")


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"onnx, onnxscript, onnxruntime: pip install -e '\.\[export\]'"):
        export(make("paper"), tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []


FOUND = [
    Localization("v6", 9.0, (Segment(1, 2.5, "jump", 0.9), Segment(3, 4, "run, fast", 0.25))),
    Localization("v7", 9.0, ()),
]


def backtal(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_the_export_command(tmp_path):
    make("compact").save_pretrained(tmp_path / "model")
    done = backtal("export", tmp_path / "model", "--format", "torch", "--out", tmp_path / "m.pt2")
    assert done.exit_code == 0, done.output
    assert "greatest difference from PyTorch" in done.stderr


def test_csv_is_in_the_order_of_time(tmp_path):
    found = Localization("v", 9.0, (Segment(4, 5, "jump", 0.87654321), Segment(1, 2, "run", 0.5)))
    write_csv(tmp_path / "found.csv", [found])
    assert (tmp_path / "found.csv").read_text().splitlines()[1:] == ["v,1,2,run,0.5", "v,4,5,jump,0.876543"]


def test_csv_and_pandas(tmp_path):
    pandas = pytest.importorskip("pandas")
    write_csv(tmp_path / "found.csv", FOUND)
    read = pandas.read_csv(tmp_path / "found.csv")
    assert read.equals(to_pandas(FOUND).astype(read.dtypes))
    assert read.loc[1].tolist() == ["v6", 3.0, 4.0, "run, fast", 0.25]


def test_label_studio_counts_frames_from_one():
    task, empty = label_studio_tasks(FOUND, {"v6": "a.mp4", "v7": "b.mp4"}, {"v6": 20.0, "v7": 20.0})
    assert task["data"] == {"video": "a.mp4", "video_id": "v6", "fps": 20.0}
    values = [region["value"] for region in task["predictions"][0]["result"]]
    assert values[0] == {"ranges": [{"start": 21, "end": 50}], "timelinelabels": ["jump"]}
    assert task["predictions"][0]["score"] == 0.9
    assert empty["predictions"][0]["result"] == []
    with pytest.raises(DataError, match="v7: its frame rate is not known"):
        label_studio_tasks(FOUND, {"v6": "a", "v7": "b"}, {"v6": 20.0})


def test_the_predictions_command(tmp_path):
    data = make_folder(tmp_path / "data")
    write_predictions(tmp_path / "found.json", FOUND)
    convert = ["predictions", tmp_path / "found.json", "--least-score", 0.5]
    done = backtal(*convert, "--to", "csv", "--out", tmp_path / "found.csv")
    assert (tmp_path / "found.csv").read_text() == "video,start,end,label,score\nv6,1.0,2.5,jump,0.9\n", done.output
    assert backtal(*convert, "--to", "activitynet", "--out", tmp_path / "strong.json").exit_code == 0
    assert json.loads((tmp_path / "strong.json").read_text())["results"]["v7"] == []
    studio = [*convert, "--to", "label-studio", "--out", tmp_path / "tasks.json"]
    assert "needs --data" in backtal(*studio).stderr
    done = backtal(*studio, "--data", data, "--url", "https://x/{video}.webm")
    assert done.exit_code == 0, done.output
    tasks = json.loads((tmp_path / "tasks.json").read_text())
    assert [task["data"]["video"] for task in tasks] == ["https://x/v6.webm", "https://x/v7.webm"]
    config = ET.fromstring((tmp_path / "tasks.xml").read_text())
    assert [label.get("value") for label in config.iter("Label")] == ["jump", "run"]
