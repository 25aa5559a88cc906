"""CVAT: XML 1.1 for video (tracks) and for images (tags and shapes of single frames). Frames count from 0."""

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from backtal.clicks.clicks import BACKGROUND, ClickTrack
from backtal.clicks.forms.form import Form, Mark, Rates, Reading, number, parse_xml, rate_of
from backtal.errors import DataError
from backtal.files import note


def _read(text: str, where: str, reading: Reading) -> Iterator[Mark]:
    root = parse_xml(text, where)
    tasks = [(task.findtext("id", ""), task) for task in root.iter("task")]
    videos = {number_: _name(task, reading) for number_, task in tasks}
    if len(videos) < len(tasks):
        raise DataError(f"{where}: two tasks have the same id")
    steps = {videos[number_]: _step(task) for number_, task in tasks}
    pictures = {videos[number_] for number_, task in tasks if task.findtext("mode") == "annotation"}
    images = _Images(where)
    for item in root:
        if item.tag not in ("track", "image"):
            continue
        place = f"{where}: {item.tag} {item.get('id')}"
        video = _video(item, videos, place, default=Path(where).stem)
        if item.tag == "image":
            images.add(item, video, place)
            continue
        if video in pictures:
            pictures.remove(video)
            note(f"{where}: video {video} is a task of images: the frames of its tracks count the images")
        step = steps.get(video, 1)
        label, runs = item.get("label"), list(_track(item, step, place))
        reading.left["track(s) that are never visible"] += not runs
        for first, last in runs:
            yield _mark(video, first, last, label, reading, place, step)
    for video, frame, image, place in images.frames():
        for shape in image:
            yield _mark(video, frame, frame, shape.get("label"), reading, place)


def _mark(
    video: str, first: float, last: float, label: str | None, reading: Reading, place: str, step: int = 1
) -> Mark:
    if not label:
        raise DataError(f"{place}: no label")
    rate = reading.rate(video, place)
    return Mark(video, first / rate, last / rate, label, frame=step / rate)


def _step(task: Element) -> int:
    """How many frames of the video lie between two that are annotated."""
    told = re.search(r"step\s*=\s*([0-9]+)", task.findtext("frame_filter") or "")
    return max(int(told[1]), 1) if told else 1


def _name(task: Element, reading: Reading) -> str:
    return reading.video(task.findtext("source") or task.findtext("name") or "")


def _video(item: Element, videos: dict[str, str], place: str, default: str) -> str:
    """The video of a track or image: that of its task, of the only task, or the file's name where it has none."""
    task = item.get("task_id")
    if task is None and len(videos) > 1:
        raise DataError(f"{place}: there are {len(videos)} tasks, but no task_id says to which it belongs")
    if task is not None and task not in videos:
        raise DataError(f"{place}: its task {task} is not described")
    return (videos[task] if task is not None else next(iter(videos.values()), "")) or default


def _track(track: Element, step: int, place: str) -> Iterator[tuple[float, float]]:
    """The first and the last frame of each run of frames in which the track is visible.

    A track that is never ended stays visible to the last frame without anybody having meant it: there, only the frames
    that were drawn count. With a frame step, the frame before the one that ends it is that many frames earlier.
    """
    first = last = None
    for frame, shape in sorted(((_frame(s.get("frame"), place), s) for s in track), key=lambda pair: pair[0]):
        if not _hidden(shape):
            drawn = first is None or shape.get("keyframe", "1") == "1"
            first, last = frame if first is None else first, frame if drawn else last
        elif first is not None:
            yield first, max(frame - step, first)
            first = None
    if first is not None and last is not None:
        yield first, last


class _Images:
    """The images of a file, and which frame of its video each is.

    CVAT counts the images of a task in `id`. That is the frame where it took them from a video itself, and calls them
    ``frame_000050``. Images that were taken from a video before are often not every frame of it, and the number of
    the frame is in the name that they were given: ids and names then count differently, and the names are right.
    """

    def __init__(self, where: str) -> None:
        self._where = where
        self._found: dict[str, list[tuple[float, Element, str]]] = {}

    def add(self, image: Element, video: str, place: str) -> None:
        self._found.setdefault(video, []).append((_frame(image.get("id"), place), image, place))

    def frames(self) -> Iterator[tuple[str, float, Element, str]]:
        """Video, frame, image and place, in the file's order."""
        for task, found in self._found.items():
            folders = {_split(image)[0] for _, image, _ in found}
            by_video: dict[str, list[tuple[float, Element, str]]] = {}
            for entry in found:
                # Images of several folders in one task are those of several videos.
                video = (_split(entry[1])[0] or task) if len(folders) > 1 else task
                by_video.setdefault(video, []).append(entry)
            for video, images in by_video.items():
                for frame, (_, image, place) in zip(self._numbered(video, images), images, strict=True):
                    yield video, frame, image, place

    def _numbered(self, video: str, images: list[tuple[float, Element, str]]) -> list[float]:
        ids, numbers = [number_ for number_, _, _ in images], [_split(image)[1] for _, image, _ in images]
        odd = [index for index, (id_, named) in enumerate(zip(ids, numbers, strict=True)) if named not in (None, id_)]
        if not odd:
            return ids
        number_, image, place = images[odd[0]]
        example = f"{self._where}: video {video}: image {number_:g} is called {image.get('name')!r}"
        if all(named == id_ + 1 for id_, named in zip(ids, numbers, strict=True) if named is not None):
            note(f"{example}: names that count from 1; frame {number_:g} of the video, which counts from 0")
            return ids
        named = [number_ for number_ in numbers if number_ is not None]
        ordered = [named for _, named in sorted(zip(ids, named, strict=False))]
        if len(named) < len(ids) or any(later <= earlier for earlier, later in pairwise(ordered)):
            raise DataError(
                f"{place}: it is called {image.get('name')!r}, so that ids and names count differently, and not every "
                "name ends with a number that rises with the id: which frame of the video an image is cannot be told"
            )
        note(
            f"{example}: frames, counted from 0, are taken from the names of its {len(ids)} image(s), not from the ids"
        )
        return named


def _split(image: Element) -> tuple[str, float | None]:
    """The folder that an image lies in, and the number that its name ends with."""
    folder, _, name = image.get("name", "").replace("\\", "/").rpartition("/")
    ends = re.search(r"([0-9]+\.)?([0-9]+)(\.[A-Za-z]\w*)?$", name)
    if ends is None or (ends[1] and len(ends[2]) < 3):  # v_12.5.jpg is called after a second
        return folder.rpartition("/")[2], None
    return folder.rpartition("/")[2], float(ends[2])


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
