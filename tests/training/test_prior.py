"""How much of the unclicked is action: data whose share is known."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from backtal import Click, ClickTrack, VideoFeatures, write_features
from backtal.data.datasets import DatasetFolder
from backtal.data.features import TimeAxis
from backtal.settings import recipe
from backtal.training import TrainingSet
from backtal.training.prior import least_action
from backtal.training.train import for_dataset

LENGTH, DIM = 200, 6
MODEL = recipe("detector").model


def training_set(
    root: Path,
    share: float,
    distance: float,
    *,
    videos: int = 20,
    clicks: int = 6,
    wrong: float = 0.0,
    located: int = 0,
) -> TrainingSet:
    """Videos of which a share is action, whose mean lies so far from that of background, and random clicks."""
    rng, database, tracks = np.random.default_rng(0), {}, {}
    for number in range(videos):
        name, action = f"v{number}", rng.random(LENGTH) < share
        values = rng.normal(size=(DIM, LENGTH)) + distance * action
        write_features(
            root / "features" / f"{name}.npz",
            VideoFeatures(name, torch.from_numpy(values).float(), TimeAxis.even(LENGTH, LENGTH)),
        )
        times = rng.choice(np.flatnonzero(~action if rng.random() >= wrong else action), clicks, replace=False) + 0.5
        tracks[name] = ClickTrack(name, tuple(Click(float(time), "background") for time in sorted(times)))
        segments = [{"label": "a", "segment": [float(t), float(t + 1)]} for t in np.flatnonzero(action)]
        database[name] = {"subset": "training", "duration": LENGTH, "annotations": segments or [], "labels": ["a"]}
    (root / "annotations.json").write_text(json.dumps({"labels": ["a"], "database": database}))
    known = [f"v{number}" for number in range(located)]
    return TrainingSet(DatasetFolder(root), "training", tracks, MODEL, located=known)


@pytest.mark.parametrize("share", [0.15, 0.4, 0.7])
def test_the_share_of_action_where_features_tell_it_apart(tmp_path: Path, share: float):
    assert least_action(training_set(tmp_path, share, 3.0), 10.0) == pytest.approx(share, abs=0.1)


def test_never_much_more_than_there_is_where_features_tell_little(tmp_path: Path):
    assert least_action(training_set(tmp_path / "none", 0.3, 0.0), 10.0) < 0.15
    assert least_action(training_set(tmp_path / "little", 0.3, 0.3), 10.0) < 0.4


def test_a_tenth_of_the_clicks_wrong_changes_little(tmp_path: Path):
    assert 0.2 < least_action(training_set(tmp_path, 0.4, 3.0, wrong=0.1), 10.0) < 0.5


def test_few_clicks_tell_nothing_and_known_videos_are_not_asked(tmp_path: Path):
    assert least_action(training_set(tmp_path / "few", 0.4, 3.0, clicks=1, videos=19), 10.0) == 0
    assert least_action(training_set(tmp_path / "one", 0.4, 3.0, clicks=40, videos=1), 10.0) == 0
    assert least_action(training_set(tmp_path / "located", 0.4, 3.0, located=20), 10.0) == 0


def test_training_takes_it_unless_it_is_set(tmp_path: Path):
    videos = training_set(tmp_path, 0.4, 3.0)
    base = recipe("detector")
    assert for_dataset(base, videos).loss.covered_least == least_action(videos, base.model.clip) > 0.3
    assert for_dataset(base.with_settings(["loss.covered_least=0.1"]), videos).loss.covered_least == 0.1
    assert for_dataset(base.with_settings(["loss.covered=0"]), videos).loss.covered_least is None
