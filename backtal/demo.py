"""The offline demo: a synthetic dataset, three ways to learn from it, what each finds."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
import torch

from backtal.clicks.clicks import simulate_clicks
from backtal.clicks.files import write_clicks
from backtal.data.datasets import DatasetFolder
from backtal.data.features import FeatureSpec, TimeAxis, VideoFeatures, write_features
from backtal.errors import DataError
from backtal.evaluation.evaluate import DetectionReport, evaluate
from backtal.files import is_taken, write_json
from backtal.nn.pretrained import LocalizationModel
from backtal.plot import save, timeline_of_video
from backtal.segments.segments import Segment, write_predictions
from backtal.settings.config import Recipe
from backtal.settings.presets import recipe, video_labels_only
from backtal.training.examples import TrainingSet
from backtal.training.train import fit

LABELS = ("dive", "jump", "serve", "throw", "vault")
TIOU = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
_FPS, _WINDOW, _STRIDE = 8, 8, 4
_OTHER_SCENES = 8
_RESEMBLANCE, _APPEARANCE, _NOISE = 0.5, 0.1, 0.5


def run(out: str | Path, seed: int = 0, *, size: tuple[int, int] = (100, 50), settings: Sequence[str] = ()) -> str:
    """Make the dataset, train and evaluate video labels only, clicks as a plain baseline, and BackTAL.

    Writes to `out`: the dataset folder ``data/``, a run folder and ``predictions-<run>.json`` for each of the
    three, ``report.json`` with all numbers, and ``timeline.png`` (which needs matplotlib).

    Args:
        out: a folder that does not exist yet or is empty.
        seed: of the data and of the training.
        size: training and test videos.
        settings: ``key=value`` changes of the recipe.

    Returns:
        The table of mean average precision, in percent.

    Raises:
        DataError: if there is something in `out`.
    """
    out = Path(out)
    if is_taken(out):
        raise DataError(f"{out}: already there and not empty; delete it, or choose another folder with --out")
    _say(f"making a synthetic dataset of {sum(size)} videos: {out / 'data'}")
    folder = make_dataset(out / "data", seed, num_training=size[0], num_test=size[1])
    videos, truth = folder.annotations.subset("test"), folder.annotations.truth("test")
    models, found, reports = {}, {}, {}
    for name, chosen in _recipes([f"seed={seed}", *settings]).items():
        _say(f"training: {name}")
        models[name] = _train(folder, chosen, out / chosen.name)
        found[name] = [models[name].localize(folder.features(video)) for video in videos]
        write_predictions(out / f"predictions-{chosen.name}.json", found[name])
        reports[name] = evaluate(found[name], truth, TIOU, f1_score=0.45)
    write_json(out / "report.json", {"seed": seed} | {name: report.to_dict() for name, report in reports.items()})
    _draw(out / "timeline.png", folder, models)
    _say(f"wrote {out}")
    return _table(reports)


def _recipes(settings: Sequence[str]) -> dict[str, Recipe]:
    """The three ways to learn, by what the table calls them; a recipe's name is its run folder's.

    Smaller batches than the recipe's give 100 videos enough steps for all three to converge. The kernel size, which
    would follow the clicks, is set for all three, so that they are one network.
    """
    full = recipe("compact").with_settings(["batch_size=8", "kernel_size=9", *settings])
    plain = full.with_settings(["model.affinity=false", "separation=0", "loss.affinity=0"])
    return {
        "video labels only": replace(video_labels_only(full), name="video-labels"),
        "+ clicks, plain": replace(plain, name="clicks-baseline"),
        "BackTAL": replace(full, name="backtal"),
    }


def _train(folder: DatasetFolder, chosen: Recipe, out: Path) -> LocalizationModel:
    clicks = folder.clicks(folder.click_files()) if chosen.loss.frame else None
    return fit(TrainingSet(folder, "training", clicks, chosen.model), chosen, out, device="cpu")


def _say(message: str) -> None:
    click.echo(f"demo: {message}", err=True)


def _table(reports: dict[str, DetectionReport]) -> str:
    rows = [("mAP (%) at tIoU", [f"{t:g}" for t in TIOU], "mean")]
    for name, report in reports.items():
        rows.append((name, [f"{100 * value:.1f}" for value in report.mean_ap], f"{100 * report.average:.1f}"))
    width = max(len(name) for name, _, _ in rows)
    return "\n".join(f"{name:<{width}} " + " ".join(f"{v:>5}" for v in [*values, mean]) for name, values, mean in rows)


def _draw(path: Path, folder: DatasetFolder, models: dict[str, LocalizationModel]) -> None:
    """The first test video of two classes or, where there is none, the first: seen by every model."""
    videos = folder.annotations.subset("test")
    video = next((video for video in videos if len(video.labels) > 1), videos[0])
    clicks = folder.clicks(folder.click_files()).get(video.video_id)
    title = f"{video.video_id}, a synthetic test video; its clicks are shown, not used"
    try:
        figure = timeline_of_video(video, folder, models, clicks=clicks, title=title)
    except ImportError as failure:
        _say(f"no timeline.png: {failure}")
        return
    save(figure, path)


def make_dataset(
    root: str | Path, seed: int = 0, *, num_training: int = 100, num_test: int = 50, dim: int = 48
) -> DatasetFolder:
    """Write a synthetic dataset folder in which context goes along with the actions.

    What a video shows at a moment is a sum of directions in feature space: the place, and during an action the
    movement. The difficulty is the paper's action-context confusion, and what real videos add to it:

    - Every class has a *scene*, which surrounds most of its instances: before, during and after. It looks a little
      like the action (the run-up, the surfacing) and tells a video's label as well as the action does.
    - A scene is no proof: videos show it without its action too, and some actions happen elsewhere.
    - The rest of the background has nothing to do with any class.
    - An action has an opening and a closing that look different, and every instance an intensity of its own.
    - A third of the videos show two classes; there are 1 to 4 instances of 1.5 to 15 s in about 20 to 120 s.
    - A snippet averages a second of video, which smooths transitions; every frame is noisy; every video has an
      appearance of its own.

    Clicks are simulated by the paper's protocol (`simulate_clicks`), for all videos; training reads only its own.

    Args:
        root: the folder to write.
        seed: equal seeds give equal datasets.
        num_training: videos in the subset ``training``.
        num_test: videos in the subset ``test``.
        dim: feature channels D.
    """
    root, rng = Path(root), np.random.default_rng(seed)
    world = _World.draw(rng, dim)
    spec = FeatureSpec("synthetic", fps=_FPS, window=_WINDOW, stride=_STRIDE, dim=dim)
    database, tracks = {}, []
    for index in range(num_training + num_test):
        video_id, script = f"video_{index:03d}", _script(rng)
        frames = world.film(script, rng)
        duration, features = len(frames) / _FPS, _snippets(frames)
        segments = _segments(script)
        tracks.append(simulate_clicks(video_id, segments, duration, rng))
        axis = TimeAxis.of(features.shape[1], duration, len(frames), spec)
        video = VideoFeatures(video_id, torch.from_numpy(features), axis, spec)
        write_features(root / "features" / f"{video_id}.npz", video)
        database[video_id] = {
            "subset": "training" if index < num_training else "test",
            "duration": duration,
            "fps": _FPS,
            "num_frames": len(frames),
            "annotations": [{"label": s.label, "segment": [s.start, s.end]} for s in segments],
        }
    write_clicks(root / "clicks" / "simulated.txt", tracks, LABELS)
    write_json(root / "annotations.json", {"labels": list(LABELS), "database": database})
    return DatasetFolder(root)


class _Shot(NamedTuple):
    """A number of frames in one place: the scene of a class or, from ``len(LABELS)`` on, another one."""

    frames: int
    scene: int
    action: int | None = None


def _script(rng: np.random.Generator) -> list[_Shot]:
    """What happens in a video, in order."""
    classes = rng.choice(len(LABELS), size=1 + (rng.random() < 1 / 3), replace=False)
    extra = rng.choice(classes, size=rng.integers(0, 5 - len(classes)))
    script = [_elsewhere(rng)]
    for action in rng.permutation([*classes, *extra]).tolist():
        scene = action if rng.random() < 0.85 else _other_scene(rng)
        length = np.clip(rng.lognormal(np.log(5), 0.5), 1.5, 15)
        script.append(_Shot(_frames(rng.uniform(1, 8)), scene))
        script.append(_Shot(_frames(length), scene, action))
        script.append(_Shot(_frames(rng.uniform(1, 8)), scene))
        if rng.random() < 0.6:
            script.append(_elsewhere(rng))
    return script


def _elsewhere(rng: np.random.Generator) -> _Shot:
    """Background away from the action; one time in five in the scene of any class."""
    scene = int(rng.integers(len(LABELS))) if rng.random() < 0.2 else _other_scene(rng)
    return _Shot(_frames(rng.uniform(3, 15)), scene)


def _other_scene(rng: np.random.Generator) -> int:
    return len(LABELS) + int(rng.integers(_OTHER_SCENES))


def _frames(seconds: float) -> int:
    return round(seconds * _FPS)


def _segments(script: Sequence[_Shot]) -> list[Segment]:
    ends = np.cumsum([shot.frames for shot in script]) / _FPS
    return [
        Segment(float(end) - shot.frames / _FPS, float(end), LABELS[shot.action])
        for shot, end in zip(script, ends, strict=True)
        if shot.action is not None
    ]


@dataclass(frozen=True, eq=False)
class _World:
    """The directions in feature space that everything is made of.

    Attributes:
        scenes: ``[S, D]``, those of the classes first.
        actions: ``[C, 2, D]``, opening and closing.
    """

    scenes: np.ndarray
    actions: np.ndarray

    @classmethod
    def draw(cls, rng: np.random.Generator, dim: int) -> "_World":
        def directions(*shape: int) -> np.ndarray:
            drawn = rng.standard_normal((*shape, dim))
            return drawn / np.linalg.norm(drawn, axis=-1, keepdims=True)

        actions, scenes = directions(len(LABELS), 2), directions(len(LABELS) + _OTHER_SCENES)
        scenes[: len(LABELS)] += _RESEMBLANCE * actions.mean(axis=1)
        return cls(scenes, actions)

    def film(self, script: Sequence[_Shot], rng: np.random.Generator) -> np.ndarray:
        """Frames ``[N, D]``."""
        shots = []
        for shot in script:
            frames = np.tile(self.scenes[shot.scene], (shot.frames, 1))
            if shot.action is not None:
                opening, closing = self.actions[shot.action]
                phase = np.linspace(0, 1, shot.frames)[:, None]
                frames += rng.uniform(0.6, 1.4) * ((1 - phase) * opening + phase * closing)
            shots.append(frames)
        film = np.concatenate(shots)
        appearance = rng.normal(scale=_APPEARANCE, size=film.shape[1])
        return film + appearance + rng.normal(scale=_NOISE, size=film.shape)


def _snippets(frames: np.ndarray) -> np.ndarray:
    """Features ``[D, T]`` (float32): the means of overlapping windows of frames ``[N, D]``."""
    windows = np.lib.stride_tricks.sliding_window_view(frames, _WINDOW, axis=0)[::_STRIDE]
    return np.ascontiguousarray(windows.mean(axis=-1).T, dtype=np.float32)
