"""What the benchmarks share: one training, measured; many of them, resumable, several at a time; means and spreads."""

import dataclasses
import hashlib
import json
import multiprocessing
import re
import statistics
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import plain
import torch

from backtal.data import DatasetFolder
from backtal.evaluation import evaluate
from backtal.files import progress, read_json, write_json
from backtal.settings import NetworkConfig, Recipe, tiou_range
from backtal.training import TrainingSet, fit

TIOU = tiou_range("0.1:0.7:0.1")
F1_SCORES = tiou_range("0.05:0.95:0.05")


@dataclass(frozen=True)
class Task:
    """One training and its measurement.

    Attributes:
        data: the dataset folder.
        row: what it is called.
        seed: of the training.
        method: a recipe, or the settings of the plain network.
        clicks: click file; None for none.
        clicked: the training videos whose clicks are read; None for all.
        located: the training videos whose start and end are read; None for all.
        aside: training videos of which nothing is read, or, with `unlabelled`, their features alone.
        unlabelled: whether the videos aside teach the second stage.
        fold: judge on training videos left out of training: 0 the last third, 1 the first, 2 all but the first,
            3 all but the last.
    """

    data: Path
    row: str
    seed: int
    method: Recipe | plain.Plain
    clicks: Path | None = None
    clicked: tuple[str, ...] | None = None
    located: tuple[str, ...] | None = ()
    aside: tuple[str, ...] = ()
    unlabelled: bool = False
    fold: int | None = None

    @property
    def place(self) -> str:
        """Its folder among all runs; another one if settings, clicks or annotations change."""
        files = [path.read_bytes() for path in (self.data / "annotations.json", self.clicks) if path]
        settings = dataclasses.replace(self, data=None, clicks=None)
        digest = hashlib.sha256(repr((settings, *files)).encode()).hexdigest()[:10]
        slug = re.sub(r"[^a-z0-9]+", "-", self.row.lower()).strip("-")
        return f"{self.data.resolve().name}/{slug}-seed{self.seed}-{digest}"


def measure(task, out):
    """Train, localize and evaluate once; a result that is there is read instead. One thread.

    Returns:
        The row, seed, mAP at each threshold and their mean, the best F1 at tIoU 0.5 of all least scores, seconds
        of processor time.
    """
    folder = Path(out) / task.place
    if (folder / "result.json").exists():
        return read_json(folder / "result.json")
    torch.set_num_threads(1)
    resumed, dataset, judged = folder.exists(), *opened(task)
    names = [video.video_id for video in dataset.annotations.subset("training")]
    clicks = dataset.clicks([task.clicks]) if task.clicks else {}
    if task.clicked is not None:
        clicks = {name: track for name, track in clicks.items() if name in set(task.clicked)}
    is_plain = isinstance(task.method, plain.Plain)
    training_set = TrainingSet(
        dataset,
        "training",
        clicks or None,
        NetworkConfig() if is_plain else task.method.model,
        allow_unclicked=True,
        located=names if task.located is None else [name for name in task.located if name in set(names)],
        unlabelled="aside" if task.unlabelled else None,
    )
    began = time.process_time()
    if is_plain:
        model = plain.fit(training_set, task.method, folder, task.seed)
    else:
        model = fit(training_set, task.method, folder, resume=True, device="cpu")
    training = time.process_time() - began
    truth = dataset.annotations.truth(judged)
    features = [dataset.features(dataset.annotations.video(video.video_id)) for video in truth]
    began = time.process_time()
    found = [plain.find(model, one, dataset.labels) if is_plain else model.localize(one) for one in features]
    inference = time.process_time() - began
    f1 = {score: evaluate(found, truth, (0.5,), f1_score=score).f1 for score in F1_SCORES}
    report = evaluate(found, truth, TIOU).to_dict()
    result = {"data": task.data.resolve().name, "row": task.row, "seed": task.seed}
    result |= {"clicks": task.clicks and task.clicks.name, "judged_on": judged, "videos": len(truth)}
    result |= {"mAP": report["mAP"], "average": report["average"]}
    result |= {"f1": max(f1.values()), "f1_score": max(f1, key=f1.get)}
    result |= {"training_seconds": training, "inference_seconds": inference, "resumed": resumed}
    write_json(folder / "result.json", result)
    return result


def opened(task):
    """The dataset with the videos of a task in their subsets, and the name of the subset to judge on."""
    dataset = DatasetFolder(task.data)
    videos = dataset.annotations.subset("training")
    subsets = dict.fromkeys(task.aside, "aside")
    if task.fold is not None:
        third = len(videos) // 3
        held = (videos[-third:], videos[:third], videos[third:], videos[:-third])[task.fold]
        subsets |= {video.video_id: "held out" for video in held}
    moved = {
        name: dataclasses.replace(video, subset=subsets.get(name, video.subset))
        for name, video in dataset.annotations.videos.items()
    }
    dataset.annotations = dataclasses.replace(dataset.annotations, videos=moved)
    return dataset, "test" if task.fold is None else "held out"


def finished(tasks, out):
    """The results that are there, without running any: by row, in the order of the tasks."""
    paths = [Path(out) / task.place / "result.json" for task in tasks]
    return [read_json(path) for path in paths if path.exists()]


def run_all(tasks, out, jobs):
    """Measure every task, `jobs` at a time; a line of JSON on stdout for each. Those that failed are named at the end.

    Returns:
        The results of those that did not fail.
    """
    context = multiprocessing.get_context("spawn")
    failed = 0
    with ProcessPoolExecutor(jobs, mp_context=context) as pool:
        waiting = {pool.submit(measure, task, out): task for task in tasks}
        for done in progress(as_completed(waiting), total=len(waiting), desc="measuring", unit="run"):
            if failure := done.exception():
                failed += 1
                print(f"{waiting[done].place}: {type(failure).__name__}: {failure}", file=sys.stderr, flush=True)
            else:
                print(json.dumps(done.result()), flush=True)
    if failed:
        print(f"{failed} run(s) failed; the same command tries them again", file=sys.stderr)
    return finished(tasks, out)


def mean_spread(results, key=lambda result: result["average"]):
    """Mean and standard deviation over runs, in percent; the deviation of a single one is 0."""
    values = [100 * key(result) for result in results]
    return statistics.mean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def by_row(results):
    """Results by dataset and row, in the order in which they come."""
    table = {}
    for result in results:
        table.setdefault(result["data"], {}).setdefault(result["row"], []).append(result)
    return table
