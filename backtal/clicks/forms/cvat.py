"""CVAT: XML 1.1 for video (tracks) and for images (tags and shapes of single frames). Frames count from 0."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from backtal.clicks.clicks import BACKGROUND, Click, ClickTrack
from backtal.clicks.forms.form import Form, Rates, middle, number, rate_of, video_of
from backtal.errors import DataError


def _read(text: str, where: str, rates: Rates) -> Iterator[tuple[str, Click]]:
    if "<!DOCTYPE" in text:
        raise DataError(f"{where}: holds a document type declaration, which CVAT does not write: not read")
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as failure:
        raise DataError(f"{where}: not valid XML: {failure}") from None
    videos = {task.findtext("id", ""): _name(task) for task in root.iter("task")}
    for item in root:
        if item.tag not in ("track", "image"):
            continue
        place = f"{where}: {item.tag} {item.get('id')}"
        video = _video(item, videos, place, default=Path(where).stem)
        for label, frame in _track(item, place) if item.tag == "track" else _image(item, place):
            if not label:
                raise DataError(f"{place}: no label")
            yield video, Click(frame / rate_of(rates, video, place), label)


def _name(task: Element) -> str:
    return video_of(task.findtext("source") or task.findtext("name") or "")


def _video(item: Element, videos: dict[str, str], place: str, default: str) -> str:
    """The video of a track or image: that of its task, of the only task, or the file's name where it has none."""
    task = item.get("task_id")
    if task is None and len(videos) > 1:
        raise DataError(f"{place}: there are {len(videos)} tasks, but no task_id says to which it belongs")
    if task is not None and task not in videos:
        raise DataError(f"{place}: its task {task} is not described")
    return (videos[task] if task is not None else next(iter(videos.values()), "")) or default


def _track(track: Element, place: str) -> Iterator[tuple[str, float]]:
    """A click for each run of frames in which the track is visible.

    It lies in the middle of the run. A track that is never ended stays visible to the last frame without anybody having
    meant it: there, only the frames that were drawn count.
    """
    label = track.get("label", "")
    first = last = None
    for frame, shape in sorted(((_frame(s.get("frame"), place), s) for s in track), key=lambda pair: pair[0]):
        if not _hidden(shape):
            drawn = first is None or shape.get("keyframe", "1") == "1"
            first, last = frame if first is None else first, frame if drawn else last
        elif first is not None:
            yield label, middle(first, frame - 1)
            first = None
    if first is not None and last is not None:
        yield label, middle(first, last)


def _image(image: Element, place: str) -> Iterator[tuple[str, float]]:
    """A click for each tag or shape of an image, whose name or id is the frame's number."""
    named = re.fullmatch(r"frame_(\d+)", video_of(image.get("name", "")).partition(".")[0])
    frame = _frame(named[1] if named else image.get("id"), place)
    for shape in image:
        yield shape.get("label", ""), frame


def _frame(value: str | None, place: str) -> float:
    return number(value, place, "its frame")


def _hidden(shape: Element) -> bool:
    """Whether a shape is outside the picture; that of a skeleton is where all its points are."""
    marks = [part.get("outside") for part in shape.iter() if part.get("outside") is not None]
    return bool(marks) and all(mark == "1" for mark in marks)


def _write(tracks: Sequence[ClickTrack], labels: Sequence[str], rates: Rates) -> str:
    """One video as a task, several as a project of one task each, in a subset of its own."""
    root = Element("annotations")
    SubElement(root, "version").text = "1.1"
    meta, alone = SubElement(root, "meta"), len(tracks) == 1
    project = SubElement(meta, "task" if alone else "project")
    tasks = project if alone else SubElement(project, "tasks")
    count = 0
    for index, track in enumerate(tracks):
        rate = rate_of(rates, track.video_id, "form cvat")
        frames = [round(click.time * rate) for click in track.clicks]
        task = project if alone else SubElement(tasks, "task")
        belongs = {} if alone else {"task_id": str(index), "subset": track.video_id}
        _describe(task, id=index, name=track.video_id, size=max(frames) + 1, mode="interpolation")
        _describe(task, source=f"{track.video_id}.mp4", **({} if alone else {"subset": track.video_id}))
        for click, frame in zip(track.clicks, frames, strict=True):
            where = {"id": str(count), "label": click.label, "source": "manual", **belongs}
            element = SubElement(root, "track", where)
            for shown, outside in ((frame, "0"), (frame + 1, "1")):
                position = {"frame": str(shown), "keyframe": "1", "outside": outside, "occluded": "0"}
                SubElement(element, "points", {**position, "points": "0.00,0.00", "z_order": "0"})
            count += 1
    listed = SubElement(project, "labels")
    for label in (*labels, BACKGROUND):
        element = SubElement(listed, "label")
        _describe(element, name=label, type="points", attributes="")
    # The size of the pictures is not known here, but readers of the format ask for it.
    _describe(SubElement(project, "original_size"), width=0, height=0)
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _describe(element: Element, **facts: object) -> None:
    for name, value in facts.items():
        SubElement(element, name).text = str(value)


VIDEO = Form(lambda text: text.lstrip().startswith("<") and "<annotations" in text, _read, _write)
