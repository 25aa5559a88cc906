import time

import numpy as np
import processes
import pytest
import torch

from backtal import BackTALModel, DataError, LocalizationConfig, ModelConfig, read_predictions
from backtal.nn import many
from backtal.nn.many import Entry, Localizer, groups_of, localize_groups

CONFIG = ModelConfig(feature_dim=8, labels=("a", "b"), hidden_dim=16)


@pytest.fixture
def place(tmp_path):
    """A model, `tmp_path / "run"`, and twelve feature files of different length."""
    torch.manual_seed(0)
    model = BackTALModel(CONFIG, LocalizationConfig(min_score=0.0))
    model.classifier.weight.data *= 30
    model.save_pretrained(tmp_path / "run")
    numbers = np.random.default_rng(0)
    (tmp_path / "features").mkdir()
    for index in range(12):
        features = numbers.standard_normal((8, 20 + 7 * index)).astype(np.float16)
        np.savez(tmp_path / "features" / f"v{index:02d}.npz", features=features, duration=10.0 + index)
    return tmp_path


def entries(place):
    return [Entry(path.stem, path) for path in sorted((place / "features").iterdir())]


def found_in(place, monkeypatch, jobs=1, size=5):
    monkeypatch.setattr(many, "GROUP", size)
    loaded = Localizer((str(place / "run"),)).load()
    return [result for group in localize_groups(loaded, groups_of(entries(place)), jobs) for result in group]


def test_batches_find_what_each_video_alone_does(place, monkeypatch):
    model = BackTALModel.from_pretrained(place / "run")
    found = found_in(place, monkeypatch)
    assert [entry.name for entry, _ in found] == [entry.name for entry in entries(place)]
    for entry, result in found:
        alone = model.localize(entry.path)
        assert len(alone) > 0
        assert [(s.label, s.start, s.end) for s in result] == [(s.label, s.start, s.end) for s in alone]
        assert [s.score for s in result] == pytest.approx([s.score for s in alone], rel=1e-4)


def test_processes_find_the_same(place, monkeypatch, forked):
    alone = dict(found_in(place, monkeypatch))
    for entry, result in found_in(place, monkeypatch, jobs=2):
        assert [(s.label, s.start, s.end) for s in result] == [(s.label, s.start, s.end) for s in alone[entry]]


def test_a_bad_file_is_reported_in_its_place(place, monkeypatch):
    (place / "features" / "v03.npz").write_bytes(b"nothing")
    np.savez(place / "features" / "v05.npz", features=np.ones((7, 30)), duration=3.0)
    results = {entry.name: result for entry, result in found_in(place, monkeypatch)}
    bad = {name: str(result) for name, result in results.items() if isinstance(result, DataError)}
    assert bad.keys() == {"v03", "v05"}
    assert "v03.npz" in bad["v03"]
    assert "features have 7 channels, expected 8" in bad["v05"]


def test_long_videos_go_in_chunks(place, monkeypatch):
    expected = dict(found_in(place, monkeypatch))
    monkeypatch.setattr(many, "CHUNK", 50)
    for entry, result in found_in(place, monkeypatch):
        assert [(s.label, s.start, s.end) for s in result] == [(s.label, s.start, s.end) for s in expected[entry]]


RUN = """
import sys, time
from backtal.cli import main
from backtal.nn import many

many.GROUP, pause, localize = 2, float(sys.argv.pop(1)), many.Loaded.localize
many.Loaded.localize = lambda *arguments: (time.sleep(pause), localize(*arguments))[1]
main(sys.argv[1:])
"""


def test_a_killed_run_goes_on_to_the_same_file(place):
    def run(out, pause=0.0):
        arguments = ["localize", place / "features", "--model", place / "run", "--resume", "--out", place / out]
        return processes.start(processes.code, RUN, pause, *arguments)

    def ends_well(process):
        process.join()
        return process.exitcode == 0

    assert ends_well(run("whole.json"))
    killed, part = run("cut.json", pause=0.5), place / "cut.json.part"
    while not part.exists() or len(part.read_text().splitlines()) < 4:
        assert killed.exitcode is None
        time.sleep(0.02)
    killed.kill()
    killed.join()
    assert not (place / "cut.json").exists()
    assert 3 <= len(part.read_text().splitlines()) - 1 < 12
    assert ends_well(run("cut.json"))
    assert (place / "cut.json").read_bytes() == (place / "whole.json").read_bytes()
    assert len(read_predictions(place / "cut.json")) == 12


@pytest.mark.filterwarnings("ignore")
def test_ray_finds_the_same(place, monkeypatch):
    ray = pytest.importorskip("ray", reason="needs the extra `ray`")
    expected = dict(found_in(place, monkeypatch))
    try:
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
        loaded = Localizer((str(place / "run"),)).load()
        for group in many.localize_on_ray(loaded, groups_of(entries(place)), actors=2):
            for entry, result in group:
                same = [(s.label, s.start, s.end) for s in expected[entry]]
                assert [(s.label, s.start, s.end) for s in result] == same
    finally:
        ray.shutdown()
