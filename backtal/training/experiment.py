"""Experiments: train, localize and evaluate under several settings and seeds; the paper's ablations as data."""

import hashlib
import logging
import multiprocessing
import statistics
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from backtal.clicks.clicks import ClickTrack, simulate_action_clicks
from backtal.data.datasets import DatasetFolder
from backtal.data.truth import Truth
from backtal.errors import ConfigError, DataError, name_some
from backtal.evaluation.evaluate import evaluate
from backtal.files import progress, read_json, write_json
from backtal.nn.pretrained import LocalizationModel
from backtal.settings.config import Recipe
from backtal.settings.presets import video_labels_only
from backtal.training.examples import TrainingSet
from backtal.training.train import fit, for_dataset


@dataclass(frozen=True)
class Protocol:
    """What an experiment trains and measures on.

    Args:
        data: the dataset folder.
        training: subset to train on.
        test: subset to measure on.
        tiou: temporal IoU thresholds.
        f1_score: least score of a segment to count for F1.
    """

    data: Path
    training: str = "training"
    test: str = "test"
    tiou: tuple[float, ...] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
    f1_score: float = 0.45


@dataclass(frozen=True)
class Run:
    """One training: a recipe (its seed included) and the clicks it sees.

    Args:
        recipe: all settings.
        background: click file of the dataset with background clicks; None for none.
        action: also click once in every action, simulated from the ground truth with the recipe's seed.
    """

    recipe: Recipe
    background: str | None
    action: bool = False

    def name(self) -> str:
        """A name that is the same for the same settings: equal runs of several tables are made once."""
        settings = asdict(replace(self.recipe, name="")), self.background, self.action
        return f"{hashlib.sha256(repr(settings).encode()).hexdigest()[:12]}-seed{self.recipe.training.seed}"


def measure(protocol: Protocol, run: Run, out: str | Path, *, threads: int | None = None) -> dict[str, Any]:
    """Train, localize and evaluate once, in ``OUT/<name of the run>``; a result that is there is read instead.

    Args:
        protocol: data and metric.
        run: settings and clicks.
        out: folder of all runs.
        threads: of PyTorch in this process; None leaves them.

    Returns:
        What `DetectionReport.to_dict` gives, with ``training_seconds``, and ``data``, a digest of what it was measured
        on.

    Raises:
        ConfigError: if the result that is there is of other data, subsets or thresholds.
    """
    folder, result = Path(out) / run.name(), Path(out) / run.name() / "result.json"
    dataset = DatasetFolder(protocol.data)
    truth = dataset.annotations.truth(protocol.test)
    tracks = _clicks(dataset, protocol.training, run)
    data = _fingerprint(protocol, dataset, truth, tracks)
    if result.exists():
        found = read_json(result)
        if found.get("data") != data:
            recorded = "was measured on other data, subsets or thresholds" if "data" in found else "names no data"
            raise ConfigError(f"{result}: {recorded}; choose another --out")
        return found
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
    training_set = TrainingSet(dataset, protocol.training, tracks, run.recipe.model, allow_unclicked=True)
    began = time.monotonic()
    fit(training_set, run.recipe, folder, resume=True)
    seconds = time.monotonic() - began
    model = LocalizationModel.from_pretrained(folder)
    found = [model.localize(dataset.features(dataset.annotations.video(video.video_id))) for video in truth]
    report = evaluate(found, truth, protocol.tiou, f1_score=protocol.f1_score)
    values = report.to_dict() | {"training_seconds": seconds, "clicks": run.background, "action_clicks": run.action}
    values["data"] = data
    write_json(result, values)
    return values


def _fingerprint(
    protocol: Protocol, dataset: DatasetFolder, truth: Truth, tracks: Mapping[str, ClickTrack] | None
) -> str:
    """A digest of all that a run reads beside its settings; of the features their checksums."""
    digest = hashlib.sha256(repr((dataset.labels, tuple(protocol.tiou), protocol.f1_score)).encode())
    for video in dataset.annotations.subset(protocol.training):
        clicks = (tracks or {}).get(video.video_id)
        weak = video.video_id, video.duration, video.num_frames, sorted(video.labels), clicks
        digest.update(repr((weak, dataset.checksums(video))).encode())
    for video in map(dataset.annotations.video, (video.video_id for video in truth)):
        unlocated = (sorted(video.unlocated),) if video.unlocated else ()
        digest.update(repr((video.num_frames, video.ground_truth, dataset.checksums(video), *unlocated)).encode())
    return digest.hexdigest()


def _clicks(dataset: DatasetFolder, training: str, run: Run) -> dict[str, ClickTrack] | None:
    if run.background is None and not run.action:
        return None
    tracks = {} if run.background is None else dataset.clicks(dataset.click_files([run.background]))
    if run.action:
        if vague := [video.video_id for video in dataset.annotations.subset(training) if not video.located]:
            raise DataError(
                f"{dataset.root}: action clicks are simulated from start and end of actions, which are not known of "
                f"{len(vague)} training video(s): {name_some(vague)}"
            )
        rng = np.random.default_rng(run.recipe.training.seed)
        for name, video in dataset.annotations.videos.items():
            clicked = simulate_action_clicks(name, video.ground_truth, rng).clicks
            tracks[name] = ClickTrack(name, (*tracks[name].clicks, *clicked) if name in tracks else clicked)
    return tracks


def measure_all(protocol: Protocol, runs: Sequence[Run], out: str | Path, *, jobs: int = 1) -> list[dict[str, Any]]:
    """`measure` every run, `jobs` at a time in processes of one thread each. Equal runs are made once.

    Results come in the order of `runs`. What was finished before stays if one fails or the process is killed.
    """
    DatasetFolder(protocol.data).annotations.truth(protocol.test)  # says what is left out, once for all runs
    different = {run.name(): run for run in runs}
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context, initializer=_hush) as pool:
        waiting = {name: pool.submit(measure, protocol, run, out, threads=1) for name, run in different.items()}
        try:
            for done in progress(as_completed(waiting.values()), total=len(waiting), desc="measuring", unit="run"):
                done.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return [waiting[run.name()].result() for run in runs]


def _hush() -> None:
    logging.getLogger("backtal").setLevel(logging.ERROR)


@dataclass(frozen=True)
class Row:
    """One line of a table: changes to the recipe, the clicks, and the paper's mAP at tIoU 0.5 on THUMOS14."""

    name: str
    settings: tuple[str, ...] = ()
    background: bool = True
    action: bool = False
    paper: float | None = None


@dataclass(frozen=True)
class Table:
    """A table of the paper."""

    title: str
    rows: tuple[Row, ...]


_PLAIN = ("model.affinity=false", "loss.affinity=0", "separation=0")
_BASELINE = Row("baseline: video labels", (*_PLAIN, "frame=0"), background=False, paper=28.6)
_MINED = "mined_background=5"

TABLES: dict[str, Table] = {
    "6": Table(
        "Action clicks and background clicks (frame loss only)",
        (
            _BASELINE,
            Row("+ action clicks", _PLAIN, background=False, action=True, paper=29.1),
            Row("+ background clicks", _PLAIN, paper=35.0),
            Row("+ both", _PLAIN, action=True, paper=36.8),
        ),
    ),
    "7": Table(
        "Score separation and affinity module",
        (
            _BASELINE,
            Row("+ background clicks", _PLAIN, paper=35.0),
            Row("+ score separation", ("model.affinity=false", "loss.affinity=0"), paper=35.6),
            Row("+ affinity module", ("separation=0",), paper=35.8),
            Row("+ both: BackTAL", paper=36.3),
            Row("BackTAL without the affinity loss", ("loss.affinity=0",), paper=35.1),
        ),
    ),
    "8": Table(
        "Where the clicks supervise",
        (
            _BASELINE,
            Row("foreground weights", (*_PLAIN, "frame_on=foreground"), paper=34.1),
            Row("CAS", _PLAIN, paper=35.0),
            Row("both", (*_PLAIN, "frame_on=both"), paper=35.2),
            Row("CAS + score separation", ("model.affinity=false", "loss.affinity=0"), paper=35.6),
        ),
    ),
    "9": Table(
        "Neighbours of a frame h",
        tuple(Row(f"h = {h}", (f"kernel_size={h}",), paper=p) for h, p in ((3, 36.3), (5, 36.1), (7, 36.0), (9, 35.8))),
    ),
    "11": Table(
        "Dimension of the embedding",
        tuple(
            Row(f"E = {e}", (f"embedding_dim={e}",), paper=p)
            for e, p in ((8, 35.7), (16, 35.9), (32, 36.3), (64, 36.2), (128, 35.9))
        ),
    ),
    "12": Table(
        "Hyper-parameters",
        tuple(
            Row(f"{symbol} = {value}", (f"{key}={value}",), paper=paper)
            for symbol, key, values in (
                ("lambda", "separation", ((0.8, 35.8), (1.0, 36.3), (1.2, 36.2))),
                ("beta", "loss.affinity", ((0.6, 35.9), (0.8, 36.3), (1.0, 36.2))),
                ("tau_same", "tau_same", ((0.3, 36.1), (0.5, 36.3), (0.7, 35.6))),
                ("tau_diff", "tau_diff", ((0.0, 35.6), (0.1, 36.3), (0.2, 36.0))),
            )
            for value, paper in values
        ),
    ),
    "13": Table(
        "Action clicks with mined background frames",
        (
            _BASELINE,
            Row("+ action clicks", _PLAIN, background=False, action=True, paper=29.1),
            Row("+ mined background", (*_PLAIN, _MINED), background=False, action=True, paper=30.2),
            Row(
                "+ score separation",
                ("model.affinity=false", "loss.affinity=0", _MINED),
                background=False,
                action=True,
                paper=31.6,
            ),
            Row("+ affinity module", ("separation=0", _MINED), background=False, action=True, paper=31.8),
            Row("+ both", (_MINED,), background=False, action=True, paper=32.4),
        ),
    ),
    "layout": Table(
        "Layout of the affinity convolution",
        (Row("per_tap (paper)"), Row("channel_blocks (released)", ("layout=channel_blocks",))),
    ),
}


def ablate(
    table: str,
    protocol: Protocol,
    base: Recipe,
    out: str | Path,
    *,
    clicks: Sequence[str],
    seeds: Sequence[int] = (0, 1, 2),
    jobs: int = 1,
) -> str:
    """Run a table of the paper on a dataset.

    Args:
        table: its number (``"6"`` ... ``"13"``), or ``"layout"``.
        protocol: data and metric.
        base: the recipe that the rows change.
        out: folder of all runs; those that are there are not made again.
        clicks: background click files, one per seed in turn. Where the recipe derives the kernel size from clicks, it
            is that of the first file in all rows, but those that set one.
        seeds: of the runs.
        jobs: runs at a time.

    Returns:
        A Markdown table: mean and standard deviation over the seeds, beside the paper's figure.

    Raises:
        ConfigError: if there is no such table, or 0.5 is not among the thresholds.
        DataError: if there is no click file, or a subset has no video.
    """
    if table not in TABLES:
        raise ConfigError(f"no table {table!r}; there are {', '.join(TABLES)}")
    if 0.5 not in protocol.tiou:
        raise ConfigError("the tables compare at tIoU 0.5, which is not among the thresholds")
    dataset = DatasetFolder(protocol.data)
    if not clicks:
        raise DataError(f"{dataset.root / 'clicks'}: no click file; the tables need background clicks")
    for subset in (protocol.training, protocol.test):
        dataset.annotations.subset(subset)
    if base.training.kernel_per_gap:
        tracks = dataset.clicks(dataset.click_files(clicks[:1]))
        # Nothing of the features stays in memory while the runs go on in other processes.
        clicked = TrainingSet(dataset, protocol.training, tracks, base.model, allow_unclicked=True, cache_bytes=0)
        base = base.with_settings([f"kernel_size={for_dataset(base, clicked).model.kernel_size}"])
    rows = TABLES[table].rows
    runs = [_run(row, base, clicks[i % len(clicks)], seed) for row in rows for i, seed in enumerate(seeds)]
    results = measure_all(protocol, runs, out, jobs=jobs)
    lines = [
        f"**{TABLES[table].title}** (Table {table})" if table.isdigit() else f"**{TABLES[table].title}**",
        "",
        f"| | mAP@0.5 | mean mAP {protocol.tiou[0]:g}:{protocol.tiou[-1]:g} | paper, THUMOS14 mAP@0.5 |",
        "|---|---|---|---|",
    ]
    for index, row in enumerate(rows):
        own = results[index * len(seeds) : (index + 1) * len(seeds)]
        half, mean = [100 * r["mAP"]["0.5"] for r in own], [100 * r["average"] for r in own]
        lines.append(f"| {row.name} | {_spread(half)} | {_spread(mean)} | {'' if row.paper is None else row.paper} |")
    return "\n".join(lines)


def _run(row: Row, base: Recipe, clicks: str, seed: int) -> Run:
    changed = base.with_settings([*row.settings, f"training.seed={seed}"])
    return Run(changed, clicks if row.background else None, row.action)


def baseline_run(base: Recipe, seed: int) -> Run:
    """The recipe from video labels alone."""
    return Run(video_labels_only(base).with_settings([f"training.seed={seed}"]), None)


def _spread(values: Sequence[float]) -> str:
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.1f} ± {deviation:.1f}"
