import json

import numpy as np
import pytest

from backtal import DataError
from backtal.clicks.clicks import background_stretches
from backtal.data.check import check_dataset
from backtal.demo import LABELS, make_dataset, run


def test_a_seed_gives_one_dataset(tmp_path):
    a, b, c = (
        make_dataset(tmp_path / n, seed, num_training=3, num_test=1) for n, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    for video in a.annotations.videos.values():
        np.testing.assert_array_equal(a.features(video).features, b.features(video).features)
    assert a.annotations == b.annotations
    assert a.annotations != c.annotations
    assert (tmp_path / "a/clicks/simulated.txt").read_text() == (tmp_path / "b/clicks/simulated.txt").read_text()


def test_the_difficulty_is_the_papers(tmp_path):
    """What surrounds an action looks more like it than other background does, and some videos have two labels."""
    data = make_dataset(tmp_path / "data", num_training=60, num_test=0)
    videos = list(data.annotations.videos.values())
    assert {len(video.labels) for video in videos} == {1, 2}
    assert len({round(video.duration) for video in videos}) > 20
    near, far, inside = [], [], []
    means = {}
    everything = np.concatenate([data.features(video).features.numpy() for video in videos], axis=1).mean(1)
    for label in LABELS:
        rows = [
            data.features(v).features.numpy()[:, [data.features(v).axis.index((s.start + s.end) / 2)]]
            - everything[:, None]
            for v in videos
            for s in v.ground_truth
            if s.label == label
        ]
        means[label] = np.concatenate(rows, axis=1).mean(1)
    for video in videos:
        features = data.features(video)
        centred = features.features.numpy() - everything[:, None]
        for segment in video.ground_truth:
            likeness = centred.T @ means[segment.label]
            inside.append(likeness[features.axis.index((segment.start + segment.end) / 2)])
            near.append(likeness[features.axis.index(segment.start - 1)])
            first = background_stretches(video.ground_truth, video.duration)[0]
            far.append(likeness[features.axis.index(first[0])])
    assert np.mean(far) < np.mean(near) < np.mean(inside)


def test_the_dataset_passes_its_check(tmp_path):
    report = check_dataset(make_dataset(tmp_path / "data", num_training=4, num_test=2))
    assert not report.broken, str(report)


def test_run_writes_everything(tmp_path):
    pytest.importorskip("matplotlib")
    table = run(tmp_path / "demo", size=(6, 2), settings=["epochs=2", "hidden_dim=8"])
    lines = table.splitlines()
    assert [line.split("  ")[0] for line in lines[1:]] == ["video labels only", "+ clicks, plain", "BackTAL"]
    report = json.loads((tmp_path / "demo" / "report.json").read_text())
    assert f"{100 * report['BackTAL']['average']:.1f}" == lines[3].split()[-1]
    for name in ("video-labels", "clicks-baseline", "backtal"):
        assert (tmp_path / "demo" / name / "model.safetensors").exists()
        assert len(json.loads((tmp_path / "demo" / f"predictions-{name}.json").read_text())["results"]) == 2
    assert (tmp_path / "demo" / "timeline.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(DataError, match="already there and not empty"):
        run(tmp_path / "demo")


def test_without_matplotlib_the_picture_alone_is_missing(tmp_path, monkeypatch, capsys):
    import sys

    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    run(tmp_path / "demo", size=(6, 2), settings=["epochs=1", "hidden_dim=8"])
    assert not (tmp_path / "demo" / "timeline.png").exists()
    assert "pip install -e '.[plot]'" in capsys.readouterr().err
