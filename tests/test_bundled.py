"""The checkpoint that comes with the package."""

import torch
from conftest import shared

from backtal import BackTALModel
from backtal.datasets import DatasetFolder
from backtal.evaluate import evaluate
from backtal.presets import PROTOCOLS


def test_it_loads_offline_under_its_name():
    model = BackTALModel.from_pretrained("shrec22")
    assert len(model.config.labels) == 16
    assert model(torch.zeros(1, 372, 20)).cas.shape == (1, 17, 20)


def test_it_reaches_the_figure_on_its_card():
    data = DatasetFolder(shared("data", "shrec22"))
    model = BackTALModel.from_pretrained("shrec22")
    videos = data.annotations.subset("test")
    found = [model.localize(data.features(video)) for video in videos]
    report = evaluate(found, [video.ground_truth for video in videos], PROTOCOLS["beoid"])
    assert f"{100 * report.average:.2f}" == model.facts["test mAP, mean over tIoU 0.1:0.1:0.7"]
