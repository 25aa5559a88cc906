"""The page of a report."""

import os
import platform
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import torch

import backtal
from backtal.data.annotations import Video
from backtal.errors import DataError
from backtal.files import atomic_path, composed
from backtal.plot import (
    affinity_of_video,
    diagnosis_figure,
    map_over_tiou,
    precision_recall,
    timeline_of_video,
    training_curves,
)
from backtal.plot.timeline import Frames
from backtal.report.html import Html, html, page, picture, settings, table, tag
from backtal.report.measure import Measured, MeasuredRun
from backtal.segments.segments import Localization, Segment
from backtal.video import is_video


def write_report(
    measured: Measured,
    out: str | Path,
    *,
    videos: str | Path | None = None,
    frames: Callable[[str], Frames | None] | None = None,
    show: int = 3,
) -> None:
    """Write a report as one HTML file, atomically. It needs no network.

    Args:
        measured: what `measure` returned.
        out: the file.
        videos: folder of the video files, called as the videos are; segments then link to their time in them.
        frames: by video name, pictures to show above its timeline (see `backtal.plot.timeline`).
        show: how many of the worst and of the best videos to show.

    Raises:
        DataError: if `videos` is no folder.
        ImportError: if matplotlib is not installed.
    """
    if videos is not None and not Path(videos).is_dir():
        raise DataError(f"{videos}: no such folder of videos")
    content = render(measured, links=_links(Path(videos), Path(out)) if videos else {}, frames=frames, show=show)
    with atomic_path(out) as temporary:
        temporary.write_text(content, encoding="utf-8")


def render(
    measured: Measured,
    *,
    links: dict[str, str] | None = None,
    frames: Callable[[str], Frames | None] | None = None,
    show: int = 3,
) -> Html:
    """The report as HTML; see `write_report`. `links` holds the URL of each video's file, where there is one."""
    first, links = measured.runs[0], links or {}
    sections = {
        "numbers": ("Numbers", _numbers(measured)),
        "errors": ("Where the errors are", _errors(measured)),
        "videos": ("Worst and best videos", _videos(measured, links, frames, show)),
        "inside": ("Inside the network", _inside(measured)),
        "settings": ("Settings", _settings(first)),
    }
    title = f"{', '.join(run.name for run in measured.runs)} on {measured.dataset.root.resolve().name}"
    return page(
        f"backtal: {title}",
        [
            tag("h1", title),
            tag("nav", [tag("a", heading, href=f"#{key}") for key, (heading, _) in sections.items()]),
            [tag("section", tag("h2", heading), body, id=key) for key, (heading, body) in sections.items()],
        ],
    )


def _links(videos: Path, out: Path) -> dict[str, str]:
    """By video name, in the composed form of Unicode, the file's URL as seen from the report."""
    start, found = out.resolve().parent, {}
    for path in sorted(path for path in videos.rglob("*") if is_video(path) and not path.name.startswith(".")):
        name = path.relative_to(videos).with_suffix("").as_posix()
        found[composed(name)] = quote(Path(os.path.relpath(path.resolve(), start)).as_posix())
    return found


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


def _numbers(measured: Measured) -> Iterator[Any]:
    first = measured.runs[0].report
    tiles = [("mean mAP", _percent(first.average))]
    tiles += [("mAP at tIoU 0.5", _percent(v)) for t, v in zip(first.tiou, first.mean_ap, strict=True) if t == 0.5]
    tiles += [
        (f"F1 at tIoU {first.f1_tiou:g}", _percent(first.f1)),
        ("videos", str(first.num_videos)),
        ("instances", str(first.num_instances)),
        ("found segments", str(first.num_predictions)),
    ]
    yield tag("div", [tag("div", name, tag("b", value), class_="tile") for name, value in tiles], class_="tiles")
    yield tag(
        "p",
        f"Mean average precision in percent, as ActivityNet computes it, on the subset {measured.truth.subset!r} of ",
        tag("code", measured.dataset.root),
        f"; its mean is over tIoU {', '.join(f'{t:g}' for t in first.tiou)}. F1 counts segments that score at least "
        f"{first.f1_score:g}: precision {_percent(first.precision)}, recall {_percent(first.recall)}.",
    )
    head = ["run", "seed", *(f"{t:g}" for t in first.tiou), "mean", "F1"]
    rows = [
        [run.name, run.seed, *map(_percent, run.report.mean_ap), _percent(run.report.average), _percent(run.report.f1)]
        for run in measured.runs
    ]
    same = measured.runs_differ_in_seed
    if same:
        values = np.array([[*r.report.mean_ap, r.report.average, r.report.f1] for r in measured.runs])
        rows.append(["mean", "", *map(_percent, values.mean(axis=0))])
        rows.append(["standard deviation", "", *map(_percent, values.std(axis=0, ddof=1))])
    yield table(head, rows, total=same)
    if len(measured.runs) == 1:
        yield tag("p", "One run: how much another seed would change is not known from this.", class_="faint small")
    remarks = [*measured.truth.remarks, *(f"Could not be read: {reason}" for reason in measured.failed.values())]
    if remarks:
        yield tag("ul", [tag("li", remark) for remark in remarks], class_="small")
    reports = {run.name: run.report for run in measured.runs}
    yield tag(
        "div",
        picture(map_over_tiou(reports), "mean average precision over temporal IoU"),
        picture(precision_recall({r.name: r.found for r in measured.runs}, measured.truth), "precision over recall"),
        class_="pair",
    )
    yield tag("h3", "Average precision of each class")
    order = np.argsort(first.ap.mean(axis=1), kind="stable")
    per_class = [
        [first.labels[i], *map(_percent, first.ap[i]), _percent(first.ap[i].mean()), first.instances[i]] for i in order
    ]
    mean = ["mean", *map(_percent, first.mean_ap), _percent(first.average), first.num_instances]
    yield tag("p", f"{measured.runs[0].name}, the hardest class first.", class_="faint small")
    head = ["class", *(f"{t:g}" for t in first.tiou), "mean", "instances"]
    yield table(head, [*per_class, mean], total=True)


def _errors(measured: Measured) -> Iterator[Any]:
    diagnosis, name = measured.diagnosis, measured.runs[0].name
    shares = diagnosis.shares(1)
    kind, costly = max(shares, key=shares.__getitem__), max(diagnosis.gain, key=diagnosis.gain.__getitem__)
    groups = [(what, group) for what, of in diagnosis.missed.items() for group in of if group.instances >= 5]
    what, worst = max(groups, key=lambda pair: pair[1].missed, default=("", None))
    text = f"At tIoU 0.5, {name}. "
    if diagnosis.counts[0, 1:].sum():
        text += f"Among the best predictions, as many as there are instances, most errors are of the kind {kind!r} "
        text += f"({_percent(shares[kind])} % of the errors). "
    text += (
        f"Without {costly} errors the mAP would be {_percent(diagnosis.mean_ap + diagnosis.gain[costly])} instead of "
    )
    text += f"{_percent(diagnosis.mean_ap)}. No prediction finds {_percent(diagnosis.missed_share)} % of the instances"
    text += f"; by {what}, those of {worst.name} are missed most ({_percent(worst.missed)} %)." if worst else "."
    yield tag("p", text)
    yield picture(diagnosis_figure(diagnosis), "kinds of error, what each costs, and missed instances")
    yield tag(
        "p",
        "G is the number of instances of a class; the first bar holds its G best predictions, the second the next G. A "
        "prediction that is not right is compared with the instance it overlaps most: double detection (tIoU at least "
        "0.5, right label, but taken), wrong label (at least 0.5), localization (0.1 to 0.5, right label), confusion "
        "(0.1 to 0.5, wrong label), background (less than 0.1). After DETAD (Alwassel et al., ECCV 2018).",
        class_="faint small",
    )
    top = diagnosis.top_frames
    if top:
        yield tag(
            "p",
            f"Of the top-k frames that make a video's score, {_percent(top.own)} % lie inside an instance of their "
            f"class and {_percent(top.any)} % inside one of any class; by chance it would be "
            f"{_percent(top.chance_own)} % and {_percent(top.chance_any)} %.",
        )
    yield tag("details", tag("summary", "The numbers"), tag("pre", str(diagnosis)))


def _videos(
    measured: Measured, links: dict[str, str], frames: Callable[[str], Frames | None] | None, show: int
) -> Iterator[Any]:
    run = measured.runs[0]
    yield tag(
        "p",
        "By segment F1 over all labels, the mean over the thresholds. Shown are found segments that score at least "
        f"{run.report.f1_score:g}; light bands carry the true segments through all rows.",
    )
    show = min(show, (len(measured.ranked) + 1) // 2)
    found = {localized.video_id: localized for localized in run.found}
    for heading, chosen in (("Worst", measured.ranked[:show]), ("Best", measured.ranked[::-1][:show])):
        for number, score in enumerate(chosen, 1):
            video = measured.dataset.annotations.video(score.video_id)
            localized = found.get(video.video_id, Localization(video.video_id, video.duration, ()))
            link = links.get(composed(video.video_id))
            name = tag("a", video.video_id, href=link, target="_blank") if link else html(video.video_id)
            yield tag("h3", f"{heading} {number}: ", name, f", F1 {_percent(score.f1)}")
            figure = timeline_of_video(
                video,
                measured.dataset,
                {run.name: run.model},
                found={run.name: localized},
                frames=frames(video.video_id) if frames else None,
                least_score=run.report.f1_score,
                title="",
            )
            yield picture(figure, f"timeline of {video.video_id}: truth, activations and found segments")
            shown = [s for s in localized if s.score >= run.report.f1_score]
            opened = {"open": ""} if link else {}
            yield tag("details", tag("summary", "Segments"), _segments(video, shown, link), **opened)


def _segments(video: Video, found: list[Segment], link: str | None) -> Html:
    rows = [(segment.start, ["true", segment]) for segment in video.ground_truth]
    rows += [(segment.start, ["found", segment]) for segment in found]
    return table(
        ["", "from", "to", "label", "score"],
        [
            [what, _time(s.start, link), _time(s.end, link), s.label, f"{s.score:.2f}" if what == "found" else ""]
            for _, (what, s) in sorted(rows, key=lambda row: row[0])
        ],
    )


def _time(second: float, link: str | None) -> Html:
    """A second, as a link to that moment of the video where there is its file."""
    text = f"{second:.2f} s"
    return tag("a", text, href=f"{link}#t={second:.2f}", target="_blank") if link else html(text)


def _inside(measured: Measured) -> Iterator[Any]:
    run = measured.runs[0]
    best = measured.dataset.annotations.video(measured.ranked[-1].video_id)
    yield tag(
        "p",
        "How alike the network finds a frame and its neighbours: this weighs the taps of its convolutions. A frame of "
        "an action (orange) should resemble the action around it, a frame of background (blue) the background.",
    )
    yield picture(affinity_of_video(best, measured.dataset, run.model), f"affinity of two frames of {best.video_id}")
    yield tag("h3", "Training")
    if run.log:
        yield picture(training_curves(run.log), "the loss and its terms over the epochs")
    else:
        yield tag("p", "The checkpoint has no training log.", class_="faint")


def _settings(run: MeasuredRun) -> Iterator[Any]:
    spec = run.model.config.feature_spec
    parts = run.recipe or {"model": asdict(run.model.config), "localization": asdict(run.model.localization)}
    features = asdict(spec) if spec else {"dim": run.model.config.feature_dim}
    tables = [settings("Features", {k: "any" if v is None else _value(v) for k, v in features.items()})]
    for part in ("model", "training", "loss", "localization"):
        if part in parts:
            values = {k: _value(v) for k, v in parts[part].items() if k not in ("feature_spec", "labels")}
            tables.append(settings(part.capitalize(), values))
    yield tag("div", tables, class_="pair small")
    if run.model.facts:
        yield settings("Model card", run.model.facts)
    if run.recipe:
        yield tag("p", f"Recipe {run.recipe.get('name')}. Data fingerprint: ", tag("code", run.recipe.get("data")))
    versions = f"backtal {backtal.__version__}, torch {torch.__version__}, Python {platform.python_version()}"
    yield tag("p", f"Labels: {', '.join(run.model.config.labels)}. Made with {versions}.", class_="faint small")


def _value(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return f"{value:.6g}" if isinstance(value, float) else "none" if value is None else str(value)
