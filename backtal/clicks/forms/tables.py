"""Tables of clicks: BackTAL's, plain ones of video and second, SF-Net's lines, the points of LACP and HR-Pro."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from backtal.clicks.clicks import BACKGROUND, ClickTrack
from backtal.clicks.forms.form import Form, Mark, Rates, Reading, rate_of, without_suffix
from backtal.clicks.forms.sheet import SEPARATORS, decimal, first_row, records, rows, table
from backtal.errors import DataError
from backtal.files import note

FIELDS = ("URLID", "URL", "TagID", "Tag", "Start", "End", "Time", "State")
_BACKGROUND_TAG = "background_background"
_POINT_FIELDS = ("class", "video_id", "point")
# What people call the columns of a plain table, in lower case.
_VIDEO = ("video", "video_id", "video_name", "file", "filename", "file_name")
_SECOND = ("second", "seconds", "time", "sec", "s", "time (s)", "time_s")
_START = ("start", "start (s)", "start_s", "begin", "t_start", "start_time")
_END = ("end", "end (s)", "end_s", "stop", "stop (s)", "t_end", "end_time")
_LABEL = ("label", "class", "action", "tag")
_COLUMNS = {"video": _VIDEO, "second": _SECOND, "start": _START, "end": _END, "label": _LABEL}


def _second(text: str, separator: str, place: str, what: str) -> float:
    """Seconds, or a frame number, in a field.

    Raises:
        DataError: if it is anything else.
    """
    try:
        found = decimal(text, separator)
    except ValueError:
        found = math.nan
    if not 0 <= found < math.inf:
        clock = " (1:02.5 is written 62.5)" if ":" in text else ""
        raise DataError(f"{place}: {what} must be a number that is not negative{clock}, found {text!r}")
    return found


def _is_second(text: str, separator: str) -> bool:
    try:
        return 0 <= decimal(text, separator) < math.inf
    except ValueError:
        return False


def _interval(start: float, end: float, place: str) -> tuple[float, float]:
    if end < start:
        raise DataError(f"{place}: not a click: Start {start}, End {end}")
    return start, end


def _backtal_separator(text: str) -> str | None:
    """What separates the fields of a table with BackTAL's header; None for any other text."""
    return next((sign for sign in SEPARATORS if {"URLID", "Tag"} & set(first_row(text, sign))), None)


def _read_backtal(text: str, where: str, reading: Reading) -> Iterator[Mark]:
    sign = _backtal_separator(text) or ","
    if missing := {"URLID", "Tag", "Start", "End"}.difference(first_row(text, sign)):
        raise DataError(f"{where}: no column {', '.join(sorted(missing))}; expected the header {','.join(FIELDS)}")
    for place, row in records(text, where, sign):
        if not (row["URLID"] and row["Tag"]):
            raise DataError(f"{place}: URLID or Tag is empty")
        start, end = (_second(row[name], sign, place, name) for name in ("Start", "End"))
        round_ = _second(row.get("Time") or "1", sign, place, "Time, the annotation round,")
        if round_ != int(round_):
            raise DataError(f"{place}: Time, the annotation round, must be a whole number, found {row['Time']!r}")
        yield Mark(row["URLID"], *_interval(start, end, place), row["Tag"], int(round_))


def _write_backtal(tracks: Sequence[ClickTrack], labels: Sequence[str], rates: Rates) -> str:
    tag_ids = {label: index for index, label in enumerate(labels)} | {BACKGROUND: len(labels)}
    lines: list[Sequence[Any]] = [FIELDS]
    for track in tracks:
        for click in track.clicks:
            tag = _BACKGROUND_TAG if click.label == BACKGROUND else click.label
            row = [track.video_id, f"{track.video_id}.mp4", tag_ids[click.label], tag]
            lines.append([*row, *2 * [repr(float(click.time))], click.round, 1])
    # The released files begin with a byte order mark; spreadsheets need it to see UTF-8.
    return "\ufeff" + table(lines)


def _columns(names: Sequence[str]) -> dict[str, str]:
    """Which of the columns hold what, of a plain table's header: those that are read."""
    found = {what: [name for name in names if name.lower() in called] for what, called in _COLUMNS.items()}
    columns = {what: called[0] for what, called in found.items() if called}
    return {what: name for what, name in columns.items() if "second" not in columns or what not in ("start", "end")}


def _said_again(names: Sequence[str], columns: Mapping[str, str]) -> list[str]:
    """Columns that may hold what is read from another one."""
    return [name for name in names if name.lower() in set().union(*_COLUMNS.values()) and name not in columns.values()]


def _plain_header(text: str) -> tuple[str, dict[str, str]] | None:
    """The separator of a plain table, and its columns: video, and second or start and end."""
    for sign in SEPARATORS:
        columns = _columns(first_row(text, sign))
        if "video" in columns and ("second" in columns or {"start", "end"} <= set(columns)):
            return sign, columns
    return None


def _plain_separator(text: str) -> str | None:
    """The separator of a table of video and second without a header.

    A semicolon comes first: of ``day1;3,5`` the comma is decimal.
    """
    for sign in (";", "\t", ","):
        row = first_row(text, sign)
        if len(row) == 2 and row[0] and _is_second(row[1], sign):
            return sign
    return None


def _read_plain(text: str, where: str, reading: Reading) -> Iterator[Mark]:
    found = _plain_header(text)
    if found is None:
        sign = _plain_separator(text) or ","
        for place, row in rows(text, where, sign):
            fields = [field.strip() for field in row]
            if len(fields) != 2 or not fields[0]:
                raise DataError(f"{place}: expected video{sign}second, found {sign.join(row)!r}")
            second = _second(fields[1], sign, place, "the second")
            yield Mark(without_suffix(fields[0]), second, second, BACKGROUND)
        return
    sign, columns = found
    if unread := _said_again(first_row(text, sign), columns):
        note(f"{where}: read from the columns {', '.join(columns.values())}; not from {', '.join(unread)}")
    for place, row in records(text, where, sign):
        video = row[columns["video"]].strip()
        label = row[columns["label"]].strip() if "label" in columns else BACKGROUND
        if not (video and label):
            raise DataError(f"{place}: the {columns['label'] if video else columns['video']} is empty")
        names = ("second", "second") if "second" in columns else ("start", "end")
        start, end = (_second(row[columns[name]], sign, place, columns[name]) for name in names)
        yield Mark(without_suffix(video), *_interval(start, end, place), label)


def _write_plain(tracks: Sequence[ClickTrack], labels: Sequence[str], rates: Rates) -> str:
    lines = [(track.video_id, repr(float(c.time)), c.label) for track in tracks for c in track.clicks]
    return table([("video", "second", "label"), *lines])


def _sfnet_separator(text: str) -> str | None:
    for sign in SEPARATORS:
        row = first_row(text, sign)
        if len(row) == 3 and _is_second(row[1], sign):
            return sign
    return None


def _read_sfnet(text: str, where: str, reading: Reading) -> Iterator[Mark]:
    sign = _sfnet_separator(text) or ","
    numbers = True
    for place, row in rows(text, where, sign):
        fields = [field.strip() for field in row]
        if len(fields) != 3 or not all(fields) or not _is_second(fields[1], sign):
            raise DataError(f"{place}: expected video,second,label, found {sign.join(row)!r}")
        numbers = numbers and _is_second(fields[2], sign)
        second = decimal(fields[1], sign)
        yield Mark(without_suffix(fields[0]), second, second, fields[2])
    if numbers:
        raise DataError(
            f"{where}: every label is a number, as with decimal commas, or ends: give the table a header, "
            "video,second,label or video,start,end"
        )


def _write_sfnet(tracks: Sequence[ClickTrack], labels: Sequence[str], rates: Rates) -> str:
    return table([track.video_id, repr(float(c.time)), c.label] for track in tracks for c in track.clicks)


def _lacp_separator(text: str) -> str | None:
    return next((sign for sign in SEPARATORS if set(_POINT_FIELDS) <= set(first_row(text, sign))), None)


def _read_lacp(text: str, where: str, reading: Reading) -> Iterator[Mark]:
    sign = _lacp_separator(text) or ","
    for place, row in records(text, where, sign):
        video, label = row["video_id"], row["class"]
        if not (video and label and _is_second(row["point"], sign)):
            raise DataError(f"{place}: needs class, video_id and a frame number as point: {row}")
        second = decimal(row["point"], sign) / reading.rate(video, place)
        yield Mark(video, second, second, label)


def _write_lacp(tracks: Sequence[ClickTrack], labels: Sequence[str], rates: Rates) -> str:
    lines: list[Sequence[Any]] = [_POINT_FIELDS]
    for track in tracks:
        rate = rate_of(rates, track.video_id, "form lacp")
        lines += [(click.label, track.video_id, round(click.time * rate)) for click in track.clicks]
    return table(lines)


BACKTAL = Form(lambda text: _backtal_separator(text) is not None, _read_backtal, _write_backtal)
SFNET = Form(lambda text: _sfnet_separator(text) is not None, _read_sfnet, _write_sfnet)
LACP = Form(lambda text: _lacp_separator(text) is not None, _read_lacp, _write_lacp)
PLAIN = Form(lambda text: (_plain_header(text) or _plain_separator(text)) is not None, _read_plain, _write_plain)
