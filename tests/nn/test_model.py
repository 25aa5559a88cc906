import dataclasses
import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from backtal import (
    BackTALLoss,
    BackTALModel,
    CheckpointError,
    ConfigError,
    DataError,
    LossConfig,
    ModelConfig,
    localize,
)
from backtal.data.features import TimeAxis, VideoFeatures
from backtal.nn.cas import topk_mean

CONFIG = ModelConfig(feature_dim=6, labels=("a", "b", "c"), hidden_dim=8, filter_dim=4, embedding_dim=4)
VARIANTS = {
    "paper": CONFIG,
    "released": dataclasses.replace(CONFIG, embedding_hidden_dim=5, layout="channel_blocks"),
    "plain": dataclasses.replace(CONFIG, affinity=False),
    "wide": dataclasses.replace(CONFIG, kernel_size=5, num_layers=3, standardize=True, topk_ratio=0.3),
}


def make(config):
    model = BackTALModel(config)
    if config.standardize:
        model.set_feature_statistics(torch.randn(6), torch.rand(6))
    return model.eval()


@pytest.mark.parametrize("name", VARIANTS)
def test_padding_changes_nothing(name):
    """Every output, every loss term and every gradient of a padded batch is that of the single videos."""
    config = VARIANTS[name]
    model = make(config).double()
    lengths = [17, 9, 25]
    videos = [torch.randn(6, n, dtype=torch.float64) for n in lengths]
    padded = torch.full((3, 6, 31), 1e6, dtype=torch.float64)
    for row, video in zip(padded, videos, strict=True):
        row[:, : video.shape[1]] = video
    batch = model(padded, torch.tensor(lengths), base_stream=True)
    for index, video in enumerate(videos):
        alone = model(video[None], base_stream=True)
        n = lengths[index]
        for field in ("scores", "base_scores"):
            torch.testing.assert_close(getattr(batch, field)[index], getattr(alone, field)[0])
        for field in ("cas", "base_cas", "foreground", "embedding", "first_layer"):
            torch.testing.assert_close(getattr(batch, field)[index, :, :n], getattr(alone, field)[0])
            assert getattr(batch, field)[index, :, n:].abs().max() == 0
    labels = torch.tensor([[1.0, 0, 1], [0, 1, 0], [1, 1, 1]])
    clicks = torch.full((3, 31), -1)
    clicks[0, [2, 5]] = clicks[1, 8] = clicks[2, [0, 24]] = 3
    loss = BackTALLoss(LossConfig(), config.topk_ratio)
    together = loss(batch, labels, clicks)
    single = [
        loss(model(video[None], base_stream=True), labels[i, None], clicks[i, None, : lengths[i]])
        for i, video in enumerate(videos)
    ]
    for term in together:
        torch.testing.assert_close(together[term], torch.stack([terms[term] for terms in single]).mean())
    gradients = torch.autograd.grad(together["total"], model.classifier.weight)[0]
    expected = torch.autograd.grad(sum(terms["total"] for terms in single) / 3, model.classifier.weight)[0]
    torch.testing.assert_close(gradients, expected)


def test_topk_is_of_each_videos_own_length():
    cas = torch.arange(20.0).view(1, 1, 20).repeat(2, 1, 1)
    assert topk_mean(cas, torch.tensor([20, 3]), 0.5)[:, 0].tolist() == [14.5, 2.0]
    assert topk_mean(cas, torch.tensor([20, 1]), 0.01)[:, 0].tolist() == [19.0, 0.0]


def test_the_base_stream_runs_in_training_only():
    model = BackTALModel(CONFIG)
    x = torch.randn(2, 6, 10)
    assert model.train()(x).base_cas is not None
    assert model.eval()(x).base_cas is None
    assert model(x, base_stream=True).base_cas is not None


def test_standardisation_comes_from_the_statistics():
    model = make(dataclasses.replace(CONFIG, standardize=True))
    plain = BackTALModel(CONFIG).eval()
    plain.load_state_dict({k: v for k, v in model.state_dict().items() if not k.startswith("feature_")})
    mean, deviation = torch.randn(6), torch.tensor([0.5, 1, 2, 3, 4, 0])
    model.set_feature_statistics(mean, deviation)
    x = torch.randn(1, 6, 12)
    scale = deviation.clamp(min=10.5 / 6 / 20)
    torch.testing.assert_close(model(x).cas, plain((x - mean[:, None]) / scale[:, None]).cas)
    with pytest.raises(ConfigError, match="standardize is False"):
        plain.set_feature_statistics(mean, deviation)


def test_values_far_from_the_training_features_are_clipped_and_said_once(caplog):
    model = BackTALModel(dataclasses.replace(CONFIG, standardize=True, clip=12.0)).eval()
    model.set_feature_statistics(torch.ones(6), torch.full((6,), 2.0))
    features = torch.randn(6, 30)
    features[2, 7] = 6200.0
    video, axis = VideoFeatures("odd", features, TimeAxis.even(30, 15.0)), TimeAxis.even(30, 15.0)
    bounded = features.clone()
    bounded[2, 7] = 1 + 12 * 2
    torch.testing.assert_close(model(features[None]).cas, model(bounded[None]).cas)
    assert model.localize(VideoFeatures("bounded", bounded, axis)).segments == model.localize(video).segments
    assert "video odd: 1 value(s) of its features, in 1 channel(s), lie more than 12 deviations" in caplog.text
    assert "video bounded" not in caplog.text
    caplog.clear()
    model.localize(video)
    model.run(video)
    assert not caplog.text
    paper = BackTALModel(CONFIG).eval()
    paper.run(video)
    assert paper.clip is None
    assert not caplog.text


def test_bad_input_is_named():
    model = BackTALModel(CONFIG)
    with pytest.raises(ValueError, match=r"must be \[B, 6, T\], got shape \(2, 5, 9\)"):
        model(torch.randn(2, 5, 9))
    with pytest.raises(ConfigError, match="at least one label"):
        BackTALModel(ModelConfig())
    for length in (1, 2):
        with pytest.raises(DataError, match=f"video v: {length} snippet"):
            model.localize(VideoFeatures("v", torch.randn(6, length), TimeAxis.even(length, 1.0)))


def test_localize_restores_the_mode_and_reads_files(tmp_path):
    model = BackTALModel(dataclasses.replace(CONFIG, temporal_length=40)).train()
    np.savez(tmp_path / "v.npz", features=np.random.default_rng(0).normal(size=(6, 12)), duration=6.0)
    found = model.localize(tmp_path / "v.npz")
    assert model.training
    assert (found.video_id, found.duration) == ("v", 6.0)
    assert all(0 <= s.start <= s.end <= 6 for s in found)
    assert len(found) > 0


def test_a_checkpoint_survives_a_round_trip(tmp_path):
    model = make(VARIANTS["wide"])
    model.save_pretrained(tmp_path / "c")
    back = BackTALModel.from_pretrained(tmp_path / "c")
    assert (back.config, back.localization) == (model.config, model.localization)
    x = torch.randn(2, 6, 14)
    torch.testing.assert_close(back(x), model(x), rtol=0, atol=0)
    assert sorted(p.name for p in (tmp_path / "c").iterdir()) == ["README.md", "config.json", "model.safetensors"]
    edit_config(lambda c: c.pop("architecture"))(tmp_path / "c")
    assert isinstance(BackTALModel.from_pretrained(tmp_path / "c"), BackTALModel)


def edit_weights(change):
    def apply(path):
        state = load_file(path / "model.safetensors")
        change(state)
        save_file(state, path / "model.safetensors")

    return apply


def edit_config(change):
    def apply(path):
        content = json.loads((path / "config.json").read_text())
        change(content)
        (path / "config.json").write_text(json.dumps(content))

    return apply


def truncate(path):
    weights = path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (edit_weights(lambda s: s.pop("trunk.0.weight")), r"missing tensor\(s\): trunk.0.weight"),
        (edit_weights(lambda s: s.update(extra=torch.zeros(1))), r"unexpected tensor\(s\): extra"),
        (edit_weights(lambda s: s.update({"classifier.weight": torch.zeros(4, 7, 1)})), "has shape \\[4, 7, 1\\]"),
        (edit_weights(lambda s: s["classifier.weight"].fill_(float("nan"))), "classifier.weight holds NaN"),
        (edit_weights(lambda s: s.update({"classifier.weight": torch.zeros(4, 8, 1).long()})), "expected floating"),
        (truncate, "not a readable safetensors file"),
        (lambda p: (p / "model.safetensors").unlink(), "model.safetensors: no such file"),
        (lambda p: (p / "config.json").unlink(), "config.json: cannot be read"),
        (lambda p: (p / "config.json").write_text("{"), "not valid JSON"),
        (edit_config(lambda c: c.pop("model")), "expected the keys"),
        (
            edit_config(lambda c: c.update(architecture="cnn")),
            "knows 'backtal', 'detector', found 'cnn'; another version may",
        ),
        (edit_config(lambda c: c.update(architecture=["backtal"])), r"found \['backtal'\]"),
        (edit_config(lambda c: c["model"].update(hidden=3)), "unknown field 'hidden'; did you mean 'hidden_dim'"),
        (edit_config(lambda c: c["model"].update(hidden_dim="8")), "model.hidden_dim: must be int, got '8'"),
        (edit_config(lambda c: c["localization"].update(nms_threshold=7)), "nms_threshold: must be in"),
        (edit_config(lambda c: c["model"].update(labels=[])), "at least one label"),
        (edit_config(lambda c: c["model"].update(labels=["a", "b", "c\x1b"])), r"labels: must be names of 1 to 200"),
        (edit_config(lambda c: c["model"].update(hidden_dim=2**21)), "hidden_dim: must be at most 1048576"),
        (edit_config(lambda c: c["model"].update(hidden_dim=2**20)), "a network of .* parameters; at most 268,435,456"),
        (edit_config(lambda c: c["localization"].update(thresholds=[0, 1, 1e-6])), "thresholds: must be at most 1000"),
        (edit_config(lambda c: c.update(facts={"a": 1})), "facts: must be an object of texts"),
    ],
)
def test_damaged_checkpoints_are_refused(tmp_path, damage, message):
    make(CONFIG).save_pretrained(tmp_path)
    damage(tmp_path)
    with pytest.raises(CheckpointError, match=message):
        BackTALModel.from_pretrained(tmp_path)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="nowhere: no such checkpoint folder"):
        BackTALModel.from_pretrained(tmp_path / "nowhere")


@pytest.mark.parametrize("name", VARIANTS)
def test_bfloat16_localizes_nearly_the_same(name):
    model = make(VARIANTS[name])
    video = VideoFeatures("v", torch.randn(6, 40), TimeAxis.even(40, 20.0))
    expected, found = model.run(video), model.bfloat16().run(video)
    assert found.cas.dtype == torch.bfloat16
    torch.testing.assert_close(found.cas.float(), expected.cas, atol=0.03, rtol=0.05)
    before = make(VARIANTS[name])
    before.load_state_dict(model.state_dict())
    assert len(model.localize(video)) == pytest.approx(len(before.localize(video)), rel=0.2)
    assert localize(found, [video.axis], model.config.labels, model.localization)[0].segments


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_padding_stays_out_in_half_types(dtype):
    model = BackTALModel(ModelConfig(feature_dim=8, labels=("jump", "run"), hidden_dim=16)).to(dtype)
    features, lengths = torch.randn(2, 8, 20, dtype=dtype), torch.tensor([20, 13])
    output = model.eval()(features, lengths)
    assert all(tensor.isfinite().all() for tensor in output if tensor is not None)
    alone = model(features[1:, :, :13])
    torch.testing.assert_close(output.cas[1:, :, :13], alone.cas, rtol=0.05, atol=0.05)
