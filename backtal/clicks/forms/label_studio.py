"""Label Studio: tasks in JSON, whole or reduced (JSON-MIN). Frames count from 1, ranges hold both ends."""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from backtal.clicks.clicks import Click, ClickTrack
from backtal.clicks.forms.form import Form, Rates, expect, middle, number, parse_json, rate_of, video_of
from backtal.errors import DataError
from backtal.files import VIDEO_SUFFIXES
from backtal.segments.predictions import timeline_region


def _read(text: str, where: str, rates: Rates) -> Iterator[tuple[str, Click]]:
    content = parse_json(text, where)
    for index, task in enumerate(content if isinstance(content, list) else [content]):
        place = f"{where}: task {index}"
        data = expect(dict, expect(dict, task, place, "it").get("data", task), place, "'data'")
        regions = list(_regions(task, place))
        if regions:
            video, address = _video(data, place)
            for round_, region_place, value in regions:
                for label, time in _clicks(value, data, rates, (video, address), region_place):
                    yield video, Click(time, label, round_)


def _video(data: Mapping[str, Any], place: str) -> tuple[str, str]:
    """The name of the video of a task, and the address that it comes from."""
    addresses = [v for v in data.values() if isinstance(v, str) and any(v.lower().endswith(s) for s in VIDEO_SUFFIXES)]
    address = data.get("video") or next(iter(addresses), None)
    name = data.get("video_id") or (address and _uploaded(address))
    return expect(str, name, place, "'video'"), str(address)


def _uploaded(address: Any) -> str:
    """The name that a file had before Label Studio stored it."""
    path = str(address).rpartition("?d=")[2]
    return re.sub(r"^[0-9a-f]{8}-", "", video_of(path)) if "/upload/" in path else video_of(path)


def _regions(task: Mapping[str, Any], place: str) -> Iterator[tuple[int, str, Mapping[str, Any]]]:
    """The regions of a task: the number of the annotation from 1, where it stands, its value."""
    if "annotations" not in task:
        for key, listed in task.items():
            for index, value in enumerate(listed if isinstance(listed, list) else ()):
                if isinstance(value, dict):
                    yield 1, f"{place}, {key!r} {index}", value
        return
    annotations = expect(list, task["annotations"], place, "'annotations'")
    kept = [expect(dict, annotation, place, "an annotation") for annotation in annotations]
    for round_, annotation in enumerate((one for one in kept if not one.get("was_cancelled")), 1):
        for index, result in enumerate(expect(list, annotation.get("result"), place, "'result' of an annotation")):
            region_place = f"{place}, annotation {round_ - 1}, result {index}"
            value = expect(dict, result, region_place, "it").get("value", {})
            yield round_, region_place, expect(dict, value, region_place, "'value'")


def _clicks(
    value: Mapping[str, Any], data: Mapping[str, Any], rates: Rates, video: tuple[str, str], place: str
) -> Iterator[tuple[str, float]]:
    """Label and second of the clicks of a region: ranges of frames, drawn rectangles, or seconds."""
    if "ranges" in value:
        items = [expect(dict, item, place, "a range") for item in expect(list, value["ranges"], place, "'ranges'")]
        runs = [tuple(number(item.get(key), place, f"{key!r}") for key in ("start", "end")) for item in items]
    elif "sequence" in value:
        runs = _runs(expect(list, value["sequence"], place, "'sequence'"), place)
    elif "start" in value and "end" in value:
        start, end = (number(value[key], place, f"{key!r}") for key in ("start", "end"))
        yield _label(value, place), middle(start, end)
        return
    else:
        return
    for first, last in runs:
        if first < 1 or last < 1:
            raise DataError(f"{place}: frames count from 1, found {first:g} to {last:g}")
        yield _label(value, place), (middle(first, last) - 1) / _rate(value, data, rates, video[0], place)


def _runs(drawn: Sequence[Any], place: str) -> list[tuple[float, float]]:
    """The frames in which a rectangle is visible: from where it is drawn to where it is switched off.

    One that is never switched off stays to the end without anybody having meant it: there, only drawn frames count.
    """
    runs, first, last = [], None, None
    for item in drawn:
        item = expect(dict, item, place, "a part of 'sequence'")
        last = number(item.get("frame"), place, "'frame'")
        first = last if first is None else first
        if not item.get("enabled", True):
            runs.append((first, last))
            first = None
    return runs if first is None or last is None else [*runs, (first, last)]


def _label(value: Mapping[str, Any], place: str) -> str:
    """The first label of a region, whatever the control is called: ``timelinelabels``, ``labels`` ..."""
    for key, labels in value.items():
        if key.endswith("labels") and isinstance(labels, list) and labels:
            return expect(str, labels[0], place, f"{key}[0]")
    raise DataError(f"{place}: no label")


def _rate(value: Mapping[str, Any], data: Mapping[str, Any], rates: Rates, video: str, place: str) -> float:
    """Frames per second as the labelling counted them; else as they are known from elsewhere."""
    if value.get("framesCount") and value.get("duration"):
        frames, duration = (number(value[key], place, repr(key)) for key in ("framesCount", "duration"))
        rate, said = frames / duration if duration else 0.0, f"framesCount {frames:g}, duration {duration:g}"
    elif data.get("fps"):
        rate = number(data["fps"], place, "'fps'")
        said = f"fps {rate:g}"
    else:
        return rate_of(rates, video, place)
    if not 0 < rate < math.inf:
        raise DataError(f"{place}: the frame rate of video {video} must be positive, found {said}")
    return rate


def _write(tracks: Sequence[ClickTrack], labels: Sequence[str], rates: Rates) -> str:
    tasks = []
    for track in tracks:
        rate = rate_of(rates, track.video_id, "form label-studio")
        result = []
        for index, click in enumerate(track.clicks):
            frame = round(click.time * rate) + 1
            result.append(timeline_region(f"{track.video_id}-{index}", frame, frame, click.label))
        data = {"video": f"/data/local-files/?d={track.video_id}.mp4", "video_id": track.video_id, "fps": rate}
        tasks.append({"data": data, "annotations": [{"result": result}]})
    return json.dumps(tasks, indent=1) + "\n"


def _is_tasks(text: str) -> bool:
    return text.lstrip()[:1] in ("[", "{") and any(f'"{key}"' in text for key in ("annotations", "ranges", "sequence"))


TASKS = Form(_is_tasks, _read, _write)
