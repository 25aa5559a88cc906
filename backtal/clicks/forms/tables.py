"""Tables: BackTAL's CSV, SF-Net's lines, the points of LACP and HR-Pro."""

import csv
import io
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from backtal.clicks.clicks import BACKGROUND, Click, ClickTrack
from backtal.clicks.forms.form import Form, Rates, middle, rate_of
from backtal.errors import DataError

FIELDS = ("URLID", "URL", "TagID", "Tag", "Start", "End", "Time", "State")
_BACKGROUND_TAG = "background_background"
_POINT_FIELDS = ("class", "video_id", "point")


def rows(text: str, where: str) -> Iterator[tuple[str, list[str]]]:
    """The rows of a CSV text that are not empty, each with where it ends.

    Raises:
        DataError: where the text is no CSV.
    """
    reader = csv.reader(io.StringIO(text, newline=""))
    try:
        for row in reader:
            if row:
                yield f"{where}, line {reader.line_num}", row
    except csv.Error as failure:
        raise DataError(f"{where}, line {reader.line_num}: {failure}") from None


def table(lines: Iterable[Sequence[Any]]) -> str:
    """Rows as CSV."""
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue()


def _first_row(text: str) -> list[str]:
    try:
        return next((row for _, row in rows(text, "")), [])
    except DataError:
        return []


def _records(text: str, where: str) -> Iterator[tuple[str, dict[str, str]]]:
    """The rows below the header by column; what a short row lacks is empty."""
    lines = rows(text, where)
    _, header = next(lines)
    for place, row in lines:
        yield place, dict.fromkeys(header, "") | dict(zip(header, row, strict=False))


def _read_backtal(text: str, where: str, rates: Rates) -> Iterator[tuple[str, Click]]:
    missing = {"URLID", "Tag", "Start", "End"}.difference(_first_row(text))
    if missing:
        raise DataError(f"{where}: no column {', '.join(sorted(missing))}; expected the header {','.join(FIELDS)}")
    for place, row in _records(text, where):
        try:
            start, end = float(row["Start"]), float(row["End"])
            round_ = int(row.get("Time") or 1)
        except ValueError:
            raise DataError(f"{place}: Start, End and Time must be numbers: {row}") from None
        if not (row["URLID"] and row["Tag"]):
            raise DataError(f"{place}: URLID or Tag is empty")
        if not 0 <= start <= end < math.inf:
            raise DataError(f"{place}: not a click: Start {start}, End {end}")
        yield row["URLID"], Click(middle(start, end), row["Tag"], round_)


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


def _is_sfnet(text: str) -> bool:
    row = _first_row(text)
    return len(row) == 3 and _is_number(row[1])


def _is_number(text: str) -> bool:
    try:
        return 0 <= float(text) < math.inf
    except ValueError:
        return False


def _read_sfnet(text: str, where: str, rates: Rates) -> Iterator[tuple[str, Click]]:
    for place, row in rows(text, where):
        fields = [field.strip() for field in row]
        if len(fields) != 3 or not all(fields) or not _is_number(fields[1]):
            raise DataError(f"{place}: expected video,second,label, found {','.join(row)!r}")
        yield fields[0], Click(float(fields[1]), fields[2])


def _write_sfnet(tracks: Sequence[ClickTrack], labels: Sequence[str], rates: Rates) -> str:
    return table([track.video_id, repr(float(c.time)), c.label] for track in tracks for c in track.clicks)


def _read_lacp(text: str, where: str, rates: Rates) -> Iterator[tuple[str, Click]]:
    for place, row in _records(text, where):
        video, label, frame = row["video_id"], row["class"], row["point"]
        if not (video and label and _is_number(frame)):
            raise DataError(f"{place}: needs class, video_id and a frame number as point: {row}")
        yield video, Click(float(frame) / rate_of(rates, video, place), label)


def _write_lacp(tracks: Sequence[ClickTrack], labels: Sequence[str], rates: Rates) -> str:
    lines: list[Sequence[Any]] = [_POINT_FIELDS]
    for track in tracks:
        rate = rate_of(rates, track.video_id, "form lacp")
        lines += [(click.label, track.video_id, round(click.time * rate)) for click in track.clicks]
    return table(lines)


BACKTAL = Form(lambda text: bool({"URLID", "Tag"}.intersection(_first_row(text))), _read_backtal, _write_backtal)
SFNET = Form(_is_sfnet, _read_sfnet, _write_sfnet)
LACP = Form(lambda text: set(_POINT_FIELDS) <= set(_first_row(text)), _read_lacp, _write_lacp)
