"""The detector: padding and chunks change nothing, it loads, combines and exports as every architecture does."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from backtal import BackTALModel, ConfigError, DataError, Localization, ModelConfig, TimeAxis, VideoFeatures, localize
from backtal.interop import export
from backtal.interop.export import Graph, _difference
from backtal.interop.info import measure
from backtal.nn import DetectorModel, localize_together, pieces, run_chunked
from backtal.nn.detector.pyramid import points, reach
from backtal.settings import DetectionConfig, DetectorConfig
from backtal.settings.architectures import read_recipe

LABELS = ("jump", "run")
CONFIG = DetectorConfig(feature_dim=6, labels=LABELS, width=16, levels=3, embedding_dim=4, embedding_hidden_dim=8)


def model(seed: int = 0, config: DetectorConfig = CONFIG) -> DetectorModel:
    """A detector that is sure enough of itself to find something."""
    torch.manual_seed(seed)
    made = DetectorModel(config, DetectionConfig(min_score=0.05)).eval()
    torch.nn.init.normal_(made.heads.classes.weight, std=0.5)
    torch.nn.init.constant_(made.heads.classes.bias, -2)
    return made


def video(length: int = 150, seed: int = 1) -> VideoFeatures:
    features = torch.randn(6, length, generator=torch.Generator().manual_seed(seed))
    return VideoFeatures("v", features, TimeAxis.even(length, length / 5))


def test_values_that_are_clipped_are_said_once(caplog: pytest.LogCaptureFixture):
    made, odd = model(), video()
    odd.features[2, 7] = 6200.0
    made.localize(odd)
    made.localize(odd)
    assert [record.message for record in caplog.records] == [
        "video v: 1 value(s) of its features, in 1 channel(s), lie more than 10 deviations from the mean of those "
        "trained on, and are clipped to that; said once, other videos may have some too"
    ]
    caplog.clear()
    model().localize(video())
    assert not caplog.text


def assert_same(one: Localization, other: Localization) -> None:
    assert len(one) == len(other) > 0

    def table(found: Localization) -> np.ndarray:
        rows = [(LABELS.index(s.label), s.start, s.end, s.score) for s in found]
        return np.array(sorted(np.round(rows, 4).tolist()))

    np.testing.assert_allclose(table(one), table(other), atol=2e-4)


@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 37])
def test_any_length_has_one_activation_a_snippet(length: int):
    output = model()(torch.randn(2, 6, length))
    assert output.cas.shape == (2, 3, length)
    assert output.foreground.shape == (2, 1, length)
    assert output.embedding.shape == (2, 4, length)
    assert output.points is not None
    assert len(output.points.places) == len(points(-(-length // 4) * 4, 3))


def test_padding_changes_nothing():
    network, short, long = model(), video(70).features, video(150).features
    batch = torch.stack([torch.nn.functional.pad(short, (0, 80), value=1e4), long])
    axes = [TimeAxis.even(70, 14.0), TimeAxis.even(150, 30.0)]
    with torch.no_grad():
        together, alone = network(batch, torch.tensor([70, 150])), network(short[None])
    torch.testing.assert_close(together.cas[0, :, :70], alone.cas[0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(together.scores[0], alone.scores[0], atol=1e-5, rtol=1e-5)
    assert together.cas[0, :, 70:].abs().sum() == 0
    assert_same(network.localize_output(together, axes)[0], network.localize_output(alone, axes[:1])[0])


@pytest.mark.parametrize("chunk", [4, 16, 64])
def test_chunks_give_what_the_whole_gives(chunk: int):
    network, whole = model(), video()
    with torch.no_grad():
        joined = network.join(run_chunked(network, network.reach, pieces(whole.features, 7), chunk=chunk))
        once = network(whole.features[None])
    torch.testing.assert_close(joined.cas, once.cas, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(joined.scores, once.scores, atol=1e-5, rtol=1e-5)
    assert_same(network.localize_output(joined, [whole.axis])[0], network.localize_output(once, [whole.axis])[0])


@pytest.mark.parametrize("changes", [{}, {"levels": 1}, {"kernel_size": 5}, {"affinity": False}, {"head_layers": 0}])
def test_nothing_beyond_the_reach_matters(changes: dict[str, int]):
    config = dataclasses.replace(CONFIG, **changes)
    network, middle = model(config=config), 400
    features = torch.randn(1, 6, 800)
    changed = features.clone()
    changed[..., middle] += 100
    with torch.no_grad():
        before, after = network(features), network(changed)
    assert before.points is not None
    assert after.points is not None
    touched = (before.points.distances != after.points.distances).any(1)[0]
    distance = (before.points.places[touched, 0] - middle - 0.5).abs()
    assert 0 < distance.max() <= reach(config)


def test_a_value_that_training_never_saw_is_clipped():
    network, far = model(), video().features[None].clone()
    network.set_feature_statistics(torch.zeros(6), torch.ones(6))
    far[0, 2, 50] = 10.0
    with torch.no_grad():
        edge = network(far)
        far[0, 2, 50] = 6200.0
        torch.testing.assert_close(network(far).cas, edge.cas)


def test_a_checkpoint_comes_back_as_a_detector(tmp_path: Path):
    network = model()
    network.save_pretrained(tmp_path)
    loaded = BackTALModel.from_pretrained(tmp_path)
    assert type(loaded) is DetectorModel
    assert (loaded.config, loaded.localization) == (network.config, network.localization)
    assert loaded.localize(video()) == network.localize(video())


def test_the_pure_function_reads_points():
    network, one = model(), video()
    output = network.run(one)
    assert localize(output, [one.axis], LABELS, network.localization, ["v"])[0] == network.localize(one)
    paper = BackTALModel(ModelConfig(feature_dim=6, labels=LABELS, hidden_dim=8)).run(one)
    with pytest.raises(ConfigError, match="has none"):
        localize(paper, [one.axis], LABELS, network.localization)


def test_two_of_a_kind_are_one_and_two_different_ones_are_their_mean():
    network, other, one = model(), model(seed=5), video()
    assert_same(localize_together([network, network], one), network.localize(one))
    mean = network.combine([network.run(one), other.run(one)])
    a, b = network.run(one).points, other.run(one).points
    assert mean.points is not None
    assert a is not None
    assert b is not None
    torch.testing.assert_close(mean.points.classes.sigmoid(), (a.classes.sigmoid() + b.classes.sigmoid()) / 2)
    torch.testing.assert_close(mean.points.distances, (a.distances + b.distances) / 2)


def test_detectors_of_other_levels_or_networks_are_not_combined():
    other = model(config=dataclasses.replace(CONFIG, levels=4))
    with pytest.raises(ConfigError, match="differ in what they predict"):
        localize_together([model(), other], video())
    paper = BackTALModel(ModelConfig(feature_dim=6, labels=LABELS, hidden_dim=8)).eval()
    with pytest.raises(ConfigError, match="differ in what they predict"):
        localize_together([model(), paper], video())


@pytest.mark.slow
@pytest.mark.parametrize("format", ["torch", "onnx"])
def test_an_exported_detector_takes_every_multiple_of_its_stride(tmp_path: Path, format: str):
    if format == "onnx":
        pytest.importorskip("onnxscript")
        pytest.importorskip("onnxruntime")
    found = export(model(), tmp_path / f"model.{'pt2' if format == 'torch' else 'onnx'}", format, check=8)
    assert found.difference is not None
    assert found.difference < 1e-3


def test_features_of_another_size_are_refused():
    with pytest.raises(DataError, match="6"):
        model().localize(VideoFeatures("v", torch.randn(5, 40), TimeAxis.even(40, 8.0)))


@pytest.mark.parametrize("length", [1, 5, 18, 21])
def test_chunks_and_batches_have_the_same_points_at_the_end(length: int):
    network = model(config=dataclasses.replace(CONFIG, levels=4))
    network.localization = DetectionConfig(min_score=0.01)
    one = video(length)
    assert_same(network.localize(one), network.localize_output(network.run(one), [one.axis])[0])


def test_half_precision_keeps_every_point_in_its_place():
    output = model().bfloat16()(torch.randn(1, 6, 600).bfloat16())
    assert output.points is not None
    assert torch.equal(output.points.places, points(600, CONFIG.levels))


def test_a_deep_pyramid_is_compared_too():
    graph = Graph(model(config=dataclasses.replace(CONFIG, levels=9, width=4)))

    def run(features: np.ndarray, lengths: np.ndarray) -> list[np.ndarray]:
        with torch.inference_mode():
            return [output.numpy() for output in graph(torch.from_numpy(features), torch.from_numpy(lengths))]

    assert _difference(graph, run, 0) == 0


def test_a_detector_recipe_has_a_size():
    assert measure("detector").by_module.keys() >= {"pyramid", "heads", "classifier"}


def test_an_architecture_that_is_no_name_is_refused():
    with pytest.raises(ConfigError, match="unknown architecture"):
        read_recipe({"architecture": ["detector"]}, "recipe")
