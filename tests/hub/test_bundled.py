"""The checkpoint that comes with the package."""

import sys
from pathlib import Path

import pytest
import torch
from conftest import shared

from backtal import BackTALModel, DataError, TimeAxis, VideoFeatures
from backtal.data.datasets import DatasetFolder
from backtal.data.features import FeatureSpec
from backtal.evaluation.evaluate import evaluate
from backtal.settings.presets import PROTOCOLS

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
from shrec22_features import SPEC


def test_it_loads_offline_under_its_name():
    model = BackTALModel.from_pretrained("shrec22")
    assert len(model.config.labels) == 16
    assert model(torch.zeros(1, 372, 20)).cas.shape == (1, 17, 20)


def test_it_takes_the_features_that_the_example_makes_and_no_others():
    model = BackTALModel.from_pretrained("shrec22")
    assert model.config.feature_spec == SPEC
    other = FeatureSpec("i3d", fps=25, window=16, stride=16, dim=372)
    for spec in (SPEC, None):
        model.localize(VideoFeatures("v", torch.randn(372, 20), TimeAxis.even(20, duration=4.0), spec))
    with pytest.raises(DataError, match=r"i3d.*shrec22-hand|shrec22-hand.*i3d"):
        model.localize(VideoFeatures("v", torch.randn(372, 20), TimeAxis.even(20, duration=12.8), other))


@pytest.mark.slow
def test_it_reaches_the_figure_on_its_card():
    data = DatasetFolder(shared("data", "shrec22"))
    model = BackTALModel.from_pretrained("shrec22")
    videos = data.annotations.subset("test")
    found = [model.localize(data.features(video)) for video in videos]
    report = evaluate(found, [video.ground_truth for video in videos], PROTOCOLS["beoid"])
    assert f"{100 * report.average:.2f}" == model.facts["test mAP, mean over tIoU 0.1:0.1:0.7"]
    each = " ".join(f"{100 * value:.2f}" for value in report.mean_ap)
    assert each == model.facts["test mAP at tIoU 0.1 ... 0.7"]
