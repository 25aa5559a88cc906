"""What every architecture can do, shown with one that is not BackTAL's."""

import dataclasses
import json
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

import backtal.nn.pretrained
from backtal import (
    BackTALModel,
    CheckpointError,
    ConfigError,
    DataError,
    Localization,
    ModelConfig,
    Segment,
    TimeAxis,
    VideoFeatures,
)
from backtal.interop.export import export
from backtal.nn import LocalizationModel, localize_together
from backtal.settings import ARCHITECTURES, Architecture, NetworkConfig


@dataclasses.dataclass(frozen=True)
class PeakConfig(NetworkConfig):
    width: int = 5


@dataclasses.dataclass(frozen=True)
class PeakLocalization:
    least: float = 0.0


class Peaks(NamedTuple):
    logits: Tensor


class PeakModel(LocalizationModel[PeakConfig, PeakLocalization, Peaks]):
    """One convolution; every snippet whose most probable class is an action is a segment."""

    architecture = "peak"

    def __init__(self, config, localization=None):
        super().__init__(config, localization or PeakLocalization())
        self.conv = nn.Conv1d(config.feature_dim, len(config.labels) + 1, config.width, padding="same")

    reach = property(lambda self: self.config.width // 2)
    shortest = property(lambda self: 2)

    def forward(self, features, lengths=None):
        return Peaks(self.conv(features))

    def join(self, blocks):
        return Peaks(torch.cat([output.logits[..., own] for output, own in blocks], dim=2))

    def localize_output(self, output, axes, video_ids=None):
        ids = video_ids or [str(index) for index in range(len(axes))]
        return [
            Localization(video_id, axis.duration, tuple(self._segments(scores, axis)))
            for video_id, axis, scores in zip(ids, axes, output.logits.softmax(1), strict=True)
        ]

    def _segments(self, scores, axis):
        for index, (score, best) in enumerate(zip(*(row.tolist() for row in scores.max(0)), strict=True)):
            if best < len(self.config.labels) and score >= self.localization.least:
                yield Segment(axis.seconds(index), axis.seconds(index + 1), self.config.labels[best], score)

    def frame_probabilities(self, output):
        return output.logits[0].softmax(0)


del backtal.nn.pretrained.MODELS["peak"]

CONFIG = PeakConfig(feature_dim=6, labels=("a", "b"))
AXIS = TimeAxis.even(9000, 4500.0)


@pytest.fixture
def registered(monkeypatch):
    monkeypatch.setitem(ARCHITECTURES, "peak", Architecture(PeakConfig, PeakLocalization, PeakLocalization))
    monkeypatch.setitem(backtal.nn.pretrained.MODELS, "peak", PeakModel)


def test_every_architecture_has_settings_and_a_network():
    assert backtal.nn.pretrained.MODELS.keys() == ARCHITECTURES.keys()
    for name, model in backtal.nn.pretrained.MODELS.items():
        assert model.architecture == name


@pytest.mark.parametrize("asked", [LocalizationModel, BackTALModel, PeakModel])
def test_the_checkpoint_says_what_is_loaded(tmp_path, registered, asked):
    model = PeakModel(CONFIG, PeakLocalization(0.25))
    model.save_pretrained(tmp_path, facts={"data": "none"})
    assert json.loads((tmp_path / "config.json").read_text()) == {
        "architecture": "peak",
        "model": {"feature_dim": 6, "labels": ["a", "b"], "temporal_length": None, "feature_spec": None, "width": 5},
        "localization": {"least": 0.25},
        "facts": {"data": "none"},
    }
    back = asked.from_pretrained(tmp_path)
    assert type(back) is PeakModel
    assert (back.config, back.localization, back.facts) == (CONFIG, PeakLocalization(0.25), {"data": "none"})
    assert torch.equal(back.conv.weight, model.conv.weight)
    assert not back.training


def test_a_subclass_of_an_architecture_is_loaded_as_itself(tmp_path):
    class Mine(BackTALModel):
        pass

    BackTALModel(ModelConfig(feature_dim=6, labels=("a",), hidden_dim=8)).save_pretrained(tmp_path)
    assert type(Mine.from_pretrained(tmp_path)) is Mine
    assert type(LocalizationModel.from_pretrained(tmp_path)) is BackTALModel


def test_settings_are_checked_by_the_architecture_that_is_named(tmp_path, registered):
    PeakModel(CONFIG).save_pretrained(tmp_path)
    content = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(content | {"architecture": "backtal"}))
    with pytest.raises(CheckpointError, match=r"model: unknown field 'width'"):
        LocalizationModel.from_pretrained(tmp_path)


def test_long_videos_go_through_in_chunks(registered):
    model, video = PeakModel(CONFIG), VideoFeatures("v", torch.randn(6, 9000), AXIS)
    seen, forward = [], model.forward
    model.forward = lambda features: seen.append(features.shape[2]) or forward(features)
    found = model.localize(video)
    assert seen == [4096 + 2, 2 + 4096 + 2, 2 + 808]
    whole = model.localize_output(model.run(video), [AXIS], ["v"])[0]
    assert len(found) == len(whole) > 1000
    for one, other in zip(found, whole, strict=True):
        assert (one.start, one.end, one.label) == (other.start, other.end, other.label)
        assert one.score == pytest.approx(other.score, abs=1e-5)
    assert model.training
    with pytest.raises(DataError, match="1 snippet"):
        model.localize(VideoFeatures("v", torch.randn(6, 1), TimeAxis.even(1, 1.0)))


def test_what_an_architecture_cannot_do_is_said(registered, tmp_path):
    model, video = PeakModel(CONFIG), VideoFeatures("v", torch.randn(6, 20), TimeAxis.even(20, 10.0))
    assert len(localize_together([model], video)) > 0
    for call in (
        lambda: localize_together([model, model], video),
        lambda: export(model, tmp_path / "m.pt2", "torch"),
    ):
        with pytest.raises(ConfigError, match="of the architecture 'peak' is not possible"):
            call()
