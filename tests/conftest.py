import json
import multiprocessing
import os
import re
from pathlib import Path

import numpy as np
import pytest

# One thread a process, here and in what tests start: as many processes run as there are cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import processes
import torch
from hypothesis import settings

from backtal import Segment, simulate_clicks, write_clicks

GOLDEN = Path(__file__).parent / "golden"
SHARED = Path(os.environ.get("BACKTAL_SHARED", Path(__file__).parents[2] / "shared"))

torch.set_num_threads(1)

# A property that writes a file waits for the disk, which no deadline knows of.
settings.register_profile("backtal", deadline=None)
settings.load_profile("backtal")


# Tests whose module makes something for all of them that takes seconds: pytest-xdist gives them to one process.
TOGETHER = re.compile(
    r"tests/(test_docs\.py::test_snippets_run|test_docs\.py|test_bare\.py|cli/test_cli\.py|interop/test_export\.py"
    r"|report/test_report\.py)"
)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """As `--dist load`, but for what belongs together."""
    if config.option.dist != "load":
        return None
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return found[0] if (found := TOGETHER.match(nodeid)) else nodeid

    return Scheduling(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes long is also slow."""
    for item in items:
        if item.get_closest_marker("long"):
            item.add_marker("slow")


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def shared(*parts: str) -> Path:
    """A file of the research data that is not part of the repository; skips the test where it is missing."""
    path = SHARED.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"research data not available: {'/'.join(parts)}")
    return path


LABELS = ("jump", "run")
TINY = ("hidden_dim=8", "filter_dim=4", "embedding_hidden_dim=4", "embedding_dim=4")
TINY += ("batch_size=3", "min_epoch_steps=1", "epochs=4", "kernel_size=9")


def train_options(*settings: str) -> list[str]:
    """Options of `backtal train` for a quick network of the recipe that `TINY` fits."""
    return ["--recipe", "between-clicks", *(part for setting in settings for part in ("--set", setting))]


def make_folder(root: Path, *, videos: int = 6, dim: int = 8) -> Path:
    """A tiny dataset folder: in a `jump` channel 0 is high, in a `run` channel 1; 2 snippets per second."""
    rng = np.random.default_rng(0)
    (root / "features").mkdir(parents=True)
    database, tracks = {}, []
    for index in range(videos + 2):
        length = int(rng.integers(20, 30))
        name, duration = f"v{index}", length / 2
        first = int(rng.integers(3, length // 2))
        segments = [Segment(first / 2, (first + 4) / 2, LABELS[index % 2])]
        features = rng.normal(0, 0.3, (dim, length)).astype(np.float32)
        features[index % 2, first : first + 4] += 2
        np.savez(root / "features" / f"{name}.npz", features=features)
        database[name] = {
            "subset": "training" if index < videos else "test",
            "duration": duration,
            "fps": 20.0,
            "annotations": [{"label": s.label, "segment": [s.start, s.end]} for s in segments],
        }
        if index < videos:
            tracks.append(simulate_clicks(name, segments, duration, rng))
    (root / "annotations.json").write_text(json.dumps({"labels": LABELS, "database": database}))
    write_clicks(root / "clicks" / "A1.txt", tracks, LABELS)
    return root


@pytest.fixture
def forked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes of the library are forked where that can be, and need not import everything again."""
    if "forkserver" in multiprocessing.get_all_start_methods():
        context = processes.context()
        monkeypatch.setattr("multiprocessing.get_context", lambda method: context)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_folder(tmp_path / "data")
