"""Every label lands on its snippet: what training receives, against values worked out by hand."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from backtal import BackTALModel, Click, ClickTrack, DataError, FeatureSpec, ModelConfig, write_features
from backtal.data.datasets import DatasetFolder
from backtal.data.features import TimeAxis, VideoFeatures
from backtal.training.examples import Example, TrainingSet, collate

LABELS = ("jump", "run")
JUMP, RUN, BACKGROUND, UNKNOWN = 0, 1, 2, -1


def folder(root: Path, annotations: list[tuple[str, float, float]], *, length: int = 10, duration: float = 5.0) -> Path:
    """One training video of snippets of half a second, unless said otherwise."""
    items = [{"label": label, "segment": [start, end]} for label, start, end in annotations]
    entry = {"subset": "training", "duration": duration, "annotations": items}
    if not items:
        entry = {"subset": "training", "duration": duration, "labels": ["jump"]}
    root.mkdir(parents=True, exist_ok=True)
    database = {"v": entry, "w": entry | {"subset": "other"}}
    (root / "annotations.json").write_text(json.dumps({"labels": LABELS, "database": database}))
    for name in database:
        video = VideoFeatures(name, torch.randn(4, length), TimeAxis.even(length, duration))
        write_features(root / "features" / f"{name}.npz", video)
    return root


def example(
    root: Path, *clicks: tuple[float, str], located: bool = False, temporal_length: int | None = None
) -> Example:
    track = {"v": ClickTrack("v", tuple(Click(time, label) for time, label in clicks))} if clicks else None
    model = ModelConfig(feature_dim=4, labels=LABELS, temporal_length=temporal_length)
    return TrainingSet(DatasetFolder(root), "training", track, model, located=["v"] if located else ())[0]


def test_features_that_do_not_fit_the_duration_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    root = folder(tmp_path, [("jump", 1.0, 2.0)])
    spec = FeatureSpec("made", fps=4, window=8, stride=2, dim=4)
    for length, said in ((7, ""), (10, ""), (50, "1 training video(s) whose features do not cover their duration")):
        features = VideoFeatures("v", torch.randn(4, length), TimeAxis.of(length, 5.0, spec=spec), spec)
        write_features(root / "features" / "v.npz", features)
        caplog.clear()
        example(root, *background(1.0))
        assert said in caplog.text
        assert bool(said) == bool(caplog.text)
    model = BackTALModel(ModelConfig(feature_dim=4, labels=LABELS, hidden_dim=8)).eval()
    caplog.clear()
    model.localize(DatasetFolder(root).features(DatasetFolder(root).annotations.videos["v"]))
    assert "video v: 26.5 s of features, 5.0 s of video: the duration, or the fps or stride" in caplog.text


def background(*times: float) -> list[tuple[float, str]]:
    return [(time, "background") for time in times]


@pytest.mark.parametrize(
    ("second", "snippet"),
    [(0.0, 0), (0.49, 0), (0.5, 1), (0.51, 1), (0.99, 1), (1.0, 2), (4.49, 8), (4.5, 9), (4.99, 9), (5.0, 9)],
)
def test_a_click_lands_on_the_snippet_that_stands_for_its_second(tmp_path: Path, second: float, snippet: int):
    clicks = example(folder(tmp_path, [("jump", 1.0, 2.0)]), *background(second)).clicks
    assert clicks.tolist() == [BACKGROUND if index == snippet else UNKNOWN for index in range(10)]


@pytest.mark.parametrize(("second", "snippet"), [(0.0, 0), (0.24, 0), (0.25, 1), (2.5, 10), (4.76, 19), (5.0, 19)])
def test_a_click_lands_on_its_snippet_after_rescaling(tmp_path: Path, second: float, snippet: int):
    clicks = example(folder(tmp_path, [("jump", 1.0, 2.0)]), *background(second), temporal_length=20).clicks
    assert clicks.tolist() == [BACKGROUND if index == snippet else UNKNOWN for index in range(20)]


def test_a_click_lands_where_windows_begin_later(tmp_path: Path):
    """Windows of 16 frames every 4 at 8 fps: snippet 0 stands for [0.75, 1.25)."""
    root = folder(tmp_path, [("jump", 1.0, 2.0)])
    spec = FeatureSpec(fps=8, window=16, stride=4)
    axis = TimeAxis.of(7, 5.0, None, spec)
    write_features(root / "features" / "v.npz", VideoFeatures("v", torch.randn(4, 7), axis, spec))
    for second, snippet in [(0.0, 0), (0.75, 0), (1.24, 0), (1.25, 1), (3.74, 5), (3.75, 6), (5.0, 6)]:
        clicks = example(root, *background(second)).clicks
        assert clicks.tolist().index(BACKGROUND) == snippet, second


def test_action_clicks_carry_their_class(tmp_path: Path):
    root = folder(tmp_path, [("jump", 1.0, 2.0), ("run", 3.0, 4.0)])
    clicks = example(root, (1.2, "jump"), (3.9, "run"), (2.5, "background")).clicks
    assert clicks.tolist() == [-1, -1, JUMP, -1, -1, BACKGROUND, -1, RUN, -1, -1]


def test_segments_teach_nothing_unless_asked(tmp_path: Path):
    one = example(folder(tmp_path / "a", [("jump", 1.0, 2.0)]), *background(0.1))
    other = example(folder(tmp_path / "b", [("jump", 3.0, 4.5)]), *background(0.1))
    assert one.clicks.tolist() == other.clicks.tolist()
    assert one.labels.tolist() == other.labels.tolist() == [1, 0]
    assert one.segments is other.segments is None


def test_located_segments_make_every_snippet_known(tmp_path: Path):
    """A snippet is of the segment that covers its middle: 0.25, 0.75, 1.25, ... seconds."""
    found = example(folder(tmp_path, [("jump", 0.76, 2.25), ("run", 2.26, 2.76)]), located=True)
    assert found.clicks.tolist() == [2, 2, JUMP, JUMP, 2, RUN, 2, 2, 2, 2]
    assert found.segments is not None
    np.testing.assert_allclose(found.segments, [[1.52, 4.5, JUMP, 1], [4.52, 5.52, RUN, 1]], atol=1e-6)


def test_located_segments_after_rescaling(tmp_path: Path):
    found = example(folder(tmp_path, [("jump", 1.0, 2.0)]), located=True, temporal_length=20)
    assert found.clicks.tolist() == [BACKGROUND] * 4 + [JUMP] * 4 + [BACKGROUND] * 12
    assert found.segments is not None
    assert found.segments.tolist() == [[4.0, 8.0, JUMP, 1.0]]


def test_a_segment_shorter_than_a_snippet_has_one(tmp_path: Path):
    found = example(folder(tmp_path, [("jump", 1.3, 1.4)]), located=True)
    assert found.clicks.tolist() == [2, 2, JUMP, 2, 2, 2, 2, 2, 2, 2]


def test_of_two_segments_the_shorter_has_the_snippet(tmp_path: Path):
    found = example(folder(tmp_path, [("run", 1.0, 2.0), ("jump", 0.0, 5.0)]), located=True)
    assert found.clicks.tolist() == [JUMP, JUMP, RUN, RUN, JUMP, JUMP, JUMP, JUMP, JUMP, JUMP]


def test_segments_at_the_edges_of_the_video(tmp_path: Path):
    found = example(folder(tmp_path, [("jump", 0.0, 0.5), ("run", 4.5, 5.0)]), located=True)
    assert found.clicks.tolist() == [JUMP] + [BACKGROUND] * 8 + [RUN]
    assert found.segments is not None
    assert found.segments[:, :2].tolist() == [[0, 1], [9, 10]]


def test_start_and_end_must_be_there_to_be_read(tmp_path: Path):
    with pytest.raises(DataError, match="do not say when actions start and end in v"):
        example(folder(tmp_path, []), located=True)


def test_start_and_end_of_another_video_are_refused(tmp_path: Path):
    data = DatasetFolder(folder(tmp_path, [("jump", 1.0, 2.0)]))
    model = ModelConfig(feature_dim=4, labels=LABELS)
    with pytest.raises(DataError, match="no training video: w"):
        TrainingSet(data, "training", None, model, located=["w"])


def test_of_an_unlabelled_video_nothing_is_read_but_its_features(tmp_path: Path):
    data = DatasetFolder(folder(tmp_path, [("jump", 1.0, 2.0)]))
    clicks = {name: ClickTrack(name, (Click(0.1, "background"),)) for name in ("v", "w")}
    videos = TrainingSet(data, "training", clicks, ModelConfig(feature_dim=4, labels=LABELS), unlabelled="other")
    assert (len(videos), videos.known) == (2, 1)
    assert videos[1].labels.tolist() == [0, 0]
    assert (videos[1].clicks == UNKNOWN).all()
    assert videos[1].segments is None


def test_padding_knows_nothing(tmp_path: Path):
    long = example(folder(tmp_path / "a", [("jump", 1.0, 2.0)]), located=True)
    short = example(folder(tmp_path / "b", [("run", 1.0, 2.0)], length=6, duration=3.0), *background(0.1))
    batch = collate([long, short])
    assert batch.lengths.tolist() == [10, 6]
    assert batch.clicks[1].tolist() == [BACKGROUND] + [UNKNOWN] * 9
    assert batch.segments is not None
    assert batch.segments[1].abs().sum() == 0
