"""BORIS: projects (JSON), tables of events and of aggregated events. Seconds, which run on over queued media files."""

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any, NamedTuple

from backtal.clicks.forms.form import Form, Mark, Reading, expect
from backtal.clicks.forms.sheet import SEPARATORS, by_column, decimal, first_row, rows
from backtal.errors import DataError
from backtal.files import parse_json

_NO_STOP = "state event(s) without their stop"
_NO_VIDEO = "event(s) of observations that are not of videos"
_NO_TIME = "event(s) without a time"
_MODIFIERS = "modifier(s), as labels are behaviours"
_NOTHING = ("", "None", "NA")


class _Media(NamedTuple):
    """The files of an observation's first player, one after the other, and the second that the first one begins at."""

    files: Sequence[str]
    lengths: Sequence[float]
    offset: float = 0.0


class _Event(NamedTuple):
    start: float
    end: float
    label: str


def _read_project(text: str, where: str, reading: Reading) -> Iterator[Mark]:
    project = expect(dict, parse_json(text, where), where, "a BORIS project")
    ethogram = expect(dict, project.get("behaviors_conf"), where, "'behaviors_conf'")
    behaviours = [expect(dict, entry, where, "an entry of 'behaviors_conf'") for entry in ethogram.values()]
    states = {str(entry.get("code")) for entry in behaviours if "STATE" in str(entry.get("type")).upper()}
    seen = _Rounds()
    for name, observation in expect(dict, project.get("observations"), where, "'observations'").items():
        place = f"{where}: observation {name!r}"
        observation = expect(dict, observation, place, "it")
        events = expect(list, observation.get("events"), place, "'events'")
        media = _project_media(observation, place)
        if media is None:
            reading.left[_NO_VIDEO] += len(events)
            continue
        pairs = _Pairs(reading)
        for index, event in enumerate(events):
            at = f"{place}, event {index}"
            fields = expect(list, event, at, "it")
            if len(fields) < 3 or not _is_number(fields[0]):
                raise DataError(f"{at}: needs a time in seconds, a subject and a behaviour, found {fields[:3]}")
            time, subject, code = float(fields[0]), str(fields[1]), expect(str, fields[2], at, "its behaviour")
            modifiers = str(fields[3]) if len(fields) > 3 else ""
            pairs.add("TOGGLE" if code in states else "POINT", time, (subject, code, modifiers), at)
        yield from _marks(pairs.done(), media, seen, name, place, reading)


def _project_media(observation: Mapping[str, Any], place: str) -> _Media | None:
    """The media of an observation of a project; None if it is live, or of pictures."""
    if observation.get("type") != "MEDIA":
        return None
    players = expect(dict, observation.get("file"), place, "'file'")
    files = [expect(str, file, place, "a media file") for file in expect(list, players.get("1"), place, "'file' '1'")]
    told = observation.get("media_info")
    listed = told.get("length") if isinstance(told, dict) else None
    lengths = listed if isinstance(listed, dict) else {}
    known = [lengths[file] for file in files if _is_number(lengths.get(file)) and lengths[file] > 0]
    offset = observation.get("time offset") or 0.0
    if not _is_number(offset):
        raise DataError(f"{place}: 'time offset' must be a number, found {offset!r}")
    return _Media(files, known, float(offset))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e12


class _Pairs:
    """Events one after the other: a state lasts from its start to the next event of the same kind, its stop."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self._open: dict[tuple[str, ...], tuple[float, str]] = {}
        self._found: list[_Event] = []

    def add(self, kind: str, time: float, key: tuple[str, ...], place: str) -> None:
        """An event; `key` is subject, behaviour and modifiers, `kind` POINT, START, STOP, or TOGGLE for either."""
        self._reading.left[_MODIFIERS] += any(modifier not in _NOTHING for modifier in key[2:])
        label = key[1]
        if not label:
            raise DataError(f"{place}: no behaviour")
        if kind == "POINT":
            self._found.append(_Event(time, time, label))
            return
        begun = self._open.pop(key, None)
        if kind == "START" or (kind == "TOGGLE" and begun is None):
            self._reading.left[_NO_STOP] += begun is not None
            self._open[key] = time, place
        elif begun is None:
            self._reading.left["state event(s) without their start"] += 1
        elif time < begun[0]:
            raise DataError(f"{place}: stops at {time:g} s what started at {begun[0]:g} s")
        else:
            self._found.append(_Event(begun[0], time, label))

    def done(self) -> list[_Event]:
        self._reading.left[_NO_STOP] += len(self._open)
        return self._found


class _Rounds:
    """Counts the observations of each video: the first is round 1."""

    def __init__(self) -> None:
        self._found: dict[str, list[str]] = {}

    def of(self, video: str, observation: str) -> int:
        names = self._found.setdefault(video, [])
        if observation not in names:
            names.append(observation)
        return names.index(observation) + 1


def _marks(
    events: Sequence[_Event], media: _Media, seen: _Rounds, observation: str, place: str, reading: Reading
) -> Iterator[Mark]:
    """The events on the videos that they were seen in; a state that goes on in the next file has a part in each."""
    if not events:
        return
    if not media.files:
        raise DataError(f"{place}: no media file")
    if len(media.files) > 1 and len(media.lengths) != len(media.files):
        raise DataError(
            f"{place}: its times run on over {len(media.files)} media files, whose lengths the file does not say: "
            "read the project (.boris) instead"
        )
    ends = list(accumulate(media.lengths))
    starts = [0.0, *ends[: len(media.files) - 1]]
    videos = [reading.video(file) for file in media.files]
    reading.durations |= dict(zip(videos, media.lengths, strict=False))
    for event in events:
        start, end = (round(time - media.offset, 6) for time in (event.start, event.end))
        if start < 0 or (ends and end > ends[-1] + 1):
            lasts = f", and its media last {ends[-1]:g} s" if ends else ""
            raise DataError(
                f"{place}: {event.label} at {event.start:g} to {event.end:g} s, but the time offset is "
                f"{media.offset:g} s{lasts}: does it count from the date of the files?"
            )
        for index, (video, begins) in enumerate(zip(videos, starts, strict=True)):
            last = index == len(videos) - 1
            ceases = float("inf") if last else ends[index]
            inside = start < ceases and (end > begins or start >= begins)
            if inside:
                first, final = max(start - begins, 0.0), (end if last else min(end, ceases)) - begins
                yield Mark(video, round(first, 6), round(final, 6), event.label, seen.of(video, observation))


def _table_separator(text: str) -> str | None:
    return next((sign for sign in SEPARATORS if "Observation id" in first_row(text, sign)), None)


def _read_table(text: str, where: str, reading: Reading) -> Iterator[Mark]:
    sign = _table_separator(text) or ","
    lines = list(rows(text, where, sign, breaks=True))
    # Up to version 7, facts of the observation stand above the table of its events.
    top = next((i for i, (_, row) in enumerate(lines) if "Behavior" in [field.strip() for field in row]), None)
    if top is None:
        raise DataError(f"{where}: no column Behavior: not a table of events of BORIS")
    above = {row[0].strip(): row[1].strip() for _, row in lines[:top] if len(row) > 1}
    observations: dict[str, list[tuple[str, Mapping[str, str]]]] = {}
    for place, row in by_column(iter(lines[top:]), where, sign):
        full = above | row
        observations.setdefault(full.get("Observation id", ""), []).append((place, full))
    seen = _Rounds()
    for name, found in observations.items():
        media = _table_media([row for _, row in found], sign, f"{where}: observation {name!r}")
        if media is None:
            reading.left[_NO_VIDEO] += len(found)
            continue
        pairs = _Pairs(reading)
        for place, row in found:
            _add(pairs, row, sign, place, reading)
        yield from _marks(pairs.done(), media, seen, name, f"{where}: observation {name!r}", reading)


def _add(pairs: _Pairs, row: Mapping[str, str], sign: str, place: str, reading: Reading) -> None:
    """Add the event of a row, or the state that an aggregated row holds from start to stop."""
    modifiers = [value.strip() for name, value in sorted(row.items()) if name.startswith("Modifier")]
    key = (row.get("Subject", ""), row["Behavior"].strip(), *modifiers)
    times = [row.get(name, "") for name in (("Start (s)", "Stop (s)") if "Start (s)" in row else ("Time",))]
    if any(time.strip() in _NOTHING for time in times):
        reading.left[_NO_TIME] += 1
        return
    try:
        seconds = [decimal(time, sign) for time in times]
    except ValueError as failure:
        raise DataError(f"{place}: {failure}: BORIS writes seconds") from None
    if "Start (s)" not in row:
        kind = (row.get("Behavior type") or row.get("Status") or "").strip()
        if kind not in ("START", "STOP", "POINT"):
            raise DataError(f"{place}: expected START, STOP or POINT as its type, found {kind!r}")
        pairs.add(kind, seconds[0], key, place)
    elif seconds[0] == seconds[1]:
        pairs.add("POINT", seconds[0], key, place)
    else:
        pairs.add("START", seconds[0], key, place)
        pairs.add("STOP", seconds[1], key, place)


def _table_media(found: Sequence[Mapping[str, str]], sign: str, place: str) -> _Media | None:
    """The media of an observation, from its rows; None if it is live, or of pictures."""
    row = found[0]
    called = next((name for name in ("Media file name", "Media file", "Media file path") if name in row), "")
    if any(word in row.get("Observation type", "").lower() for word in ("live", "images", "pictures")):
        return None
    try:
        offset = decimal(row.get("Time offset (s)") or "0", sign)
        if player := re.match(r"player #1: ?(.*?)(?=\|player #\d+:|$)", row.get("Source", ""), re.DOTALL):
            files = player[1].split(";")
            lengths = [decimal(one, sign) for one in row.get("Media duration (s)", "").split("|")[0].split(";") if one]
            return _Media(files, lengths, offset)
    except ValueError as failure:
        raise DataError(f"{place}: Time offset (s) and Media duration (s) must be seconds: {failure}") from None
    files = list(dict.fromkeys(row.get(called, "").strip() for row in found))
    return None if set(files) <= set(_NOTHING) else _Media(files, [], offset)


PROJECT = Form(
    lambda text: text.lstrip().startswith("{") and '"observations"' in text and '"behaviors_conf"' in text,
    _read_project,
    None,
)
TABLE = Form(lambda text: _table_separator(text) is not None, _read_table, None)
