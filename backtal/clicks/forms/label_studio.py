"""Label Studio: tasks in JSON, whole or reduced (JSON-MIN). Frames count from 1, ranges hold both ends."""

import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from backtal.clicks.clicks import ClickTrack
from backtal.clicks.forms.form import Form, Mark, Rates, Reading, expect, number, rate_of
from backtal.errors import DataError
from backtal.files import VIDEO_SUFFIXES, note, parse_json
from backtal.segments.predictions import timeline_region

_DEFAULT_RATE = 24.0  # what Label Studio counts where a project's <Video> has no frameRate
_RATE_KEYS = ("fps", "framerate", "frame_rate")


def _read(text: str, where: str, reading: Reading) -> Iterator[Mark]:
    content = parse_json(text, where)
    guessed = 0
    for index, task in enumerate(content if isinstance(content, list) else [content]):
        place = f"{where}: task {index}"
        data = expect(dict, expect(dict, task, place, "it").get("data", task), place, "'data'")
        for round_, region_place, value in _regions(task, place, reading.left):
            spans, counted = _spans(value, region_place)
            if not spans:
                reading.left["result(s) without a time"] += 1
                continue
            video, labels, frame = _video(data, place, reading), _labels(value, region_place), 0.0
            if counted:
                rate = _rate(value, data, video, region_place)
                if rate is None and reading.given is None:
                    rate, guessed = _DEFAULT_RATE, guessed + 1
                if rate and reading.given and abs(rate - reading.given) > 0.01 * rate:
                    note(f"{where}: counted at {rate:g} frames a second, as it says itself, not at {reading.given:g}")
                rate = rate or reading.rate(video, region_place)
                spans, frame = [((first - 1) / rate, (last - 1) / rate) for first, last in spans], 1 / rate
            for start, end in spans:
                yield from (Mark(video, start, end, label, round_, frame) for label in labels)
    if guessed:
        note(
            f"{where}: counted at 24 frames a second, as Label Studio counts where the project's <Video> has no "
            f"frameRate, in {guessed} region(s) that carry no rate; if the project has one, convert with --fps"
        )


def _video(data: Mapping[str, Any], place: str, reading: Reading) -> str:
    """The name of the video of a task."""
    addresses = [v for v in data.values() if isinstance(v, str) and any(v.lower().endswith(s) for s in VIDEO_SUFFIXES)]
    address = data.get("video") or next(iter(addresses), None)
    return expect(str, data.get("video_id") or (address and _uploaded(address, reading)), place, "'video'")


def _uploaded(address: Any, reading: Reading) -> str:
    """The name that a file had before Label Studio stored it."""
    path = str(address).rpartition("?d=")[2]
    name = reading.video(path)
    return re.sub(r"^[0-9a-f]{8}-", "", name) if "/upload/" in path else name


def _regions(task: Mapping[str, Any], place: str, left: Counter[str]) -> Iterator[tuple[int, str, Mapping[str, Any]]]:
    """The regions of a task: the number of the annotation from 1, where it stands, its value."""
    if "annotations" not in task:
        for key, listed in task.items():
            for index, value in enumerate(listed if isinstance(listed, list) else ()):
                if isinstance(value, dict):
                    yield 1, f"{place}, {key!r} {index}", value
        return
    annotations = expect(list, task["annotations"], place, "'annotations'")
    kept = [expect(dict, annotation, place, "an annotation") for annotation in annotations]
    left["cancelled annotation(s)"] += sum(bool(one.get("was_cancelled")) for one in kept)
    for what in ("predictions", "drafts"):
        left[f"{what} that nobody submitted"] += len(task[what]) if isinstance(task.get(what), list) else 0
    for round_, annotation in enumerate((one for one in kept if not one.get("was_cancelled")), 1):
        for index, result in enumerate(expect(list, annotation.get("result"), place, "'result' of an annotation")):
            region_place = f"{place}, annotation {round_ - 1}, result {index}"
            value = expect(dict, result, region_place, "it").get("value", {})
            yield round_, region_place, expect(dict, value, region_place, "'value'")


def _spans(value: Mapping[str, Any], place: str) -> tuple[list[tuple[float, float]] | None, bool]:
    """From when to when a region lasts, and whether frames are counted (else seconds); None if it has no time."""
    if "ranges" in value:
        items = [expect(dict, item, place, "a range") for item in expect(list, value["ranges"], place, "'ranges'")]
        spans = [span for item in items if (span := _range(item, place))]
    elif "sequence" in value:
        spans = _runs(expect(list, value["sequence"], place, "'sequence'"), place)
    elif "start" in value and "end" in value:
        start, end = (number(value[key], place, f"{key!r}") for key in ("start", "end"))
        return [(start, end)], False
    else:
        return None, False
    for first, last in spans:
        if first < 1 or last < 1:
            raise DataError(f"{place}: frames count from 1, found {first:g} to {last:g}")
    return spans, True


def _range(item: Mapping[str, Any], place: str) -> tuple[float, float] | None:
    """The first and last frame of a range; one that was begun and not ended counts where it was begun."""
    given = [number(item[key], place, f"{key!r}") for key in ("start", "end") if item.get(key) is not None]
    return (given[0], given[-1]) if given else None


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


def _labels(value: Mapping[str, Any], place: str) -> list[str]:
    """The labels of a region, whatever the control is called: ``timelinelabels``, ``labels`` ..."""
    for key, labels in value.items():
        if key.endswith("labels") and isinstance(labels, list) and labels:
            return [expect(str, label, place, f"{key}[{index}]") for index, label in enumerate(labels)]
    raise DataError(f"{place}: no label")


def _rate(value: Mapping[str, Any], data: Mapping[str, Any], video: str, place: str) -> float | None:
    """Frames per second as the labelling counted them; None where the file does not say."""
    told = next((key for key in data if key.lower() in _RATE_KEYS and data[key]), None)
    if value.get("framesCount") and value.get("duration"):
        frames, duration = (number(value[key], place, repr(key)) for key in ("framesCount", "duration"))
        rate, said = frames / duration if duration else 0.0, f"framesCount {frames:g}, duration {duration:g}"
    elif told:
        rate = number(data[told], place, repr(told))
        said = f"{told} {rate:g}"
    else:
        return None
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
