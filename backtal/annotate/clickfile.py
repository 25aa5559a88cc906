"""One annotator's click file, changed video by video: every row that did not change stays as it is."""

import csv
import io
import tempfile
from collections.abc import Collection, Sequence
from pathlib import Path

from backtal.click_files import read_clicks, write_clicks
from backtal.clicks import BACKGROUND, Click, ClickTrack
from backtal.errors import DataError
from backtal.files import atomic_path

Mark = tuple[float, str]  # second and label
_NEEDED = ("URLID", "Tag", "Start", "End")


def read_marks(path: Path) -> dict[str, list[Mark]]:
    """The clicks in a file by video, in order of time; none if there is no file.

    Raises:
        DataError: if the file is malformed, or in a form that the page does not write.
    """
    if not path.exists():
        return {}
    _rows(path)
    return {
        name: sorted({(click.time, click.label) for click in track.clicks}) for name, track in read_clicks(path).items()
    }


def replace_marks(path: Path, video: str, marks: Collection[Mark], labels: Sequence[str]) -> None:
    """Make `marks` the clicks on a video, atomically. Rows of other videos, and of clicks that stay, are kept as read.

    Args:
        path: the click file, which need not exist.
        video: name of the video.
        marks: its clicks.
        labels: of the dataset, which give the new rows their TagID.

    Raises:
        DataError: as `read_marks`.
        OSError: if it cannot be written.
    """
    header, rows = _rows(path) if path.exists() else ([], [])
    column = {name: index for index, name in enumerate(header)}
    kept, place = [], None
    others: list[list[str]] = []
    for row in rows:
        if row[column["URLID"]] != video:
            others.append(row)
            continue
        place = len(others) if place is None else place
        mark = _mark(row, column)
        if mark in marks:
            kept.append((mark, row))
    present = {mark for mark, _ in kept}
    new_header, made = _made(video, sorted(set(marks) - present), labels)
    header = header or new_header
    for mark, fields in made:
        kept.append((mark, [fields.get(name, "") for name in header]))
    kept.sort(key=lambda item: item[0])
    place = len(others) if place is None else place
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([header, *others[:place], *(row for _, row in kept), *others[place:]])


def _rows(path: Path) -> tuple[list[str], list[list[str]]]:
    """Header and rows, as they stand in the file."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as failure:
        raise DataError(f"{path}: not a text file: {failure}") from failure
    reader = csv.reader(io.StringIO(text, newline=""))
    header = next(reader, [])
    if not set(_NEEDED) <= set(header):
        raise DataError(f"{path}: not in the form that `backtal annotate` writes: choose another annotator's name")
    return header, [row for row in reader if row]


def _mark(row: list[str], column: dict[str, int]) -> Mark:
    start, end = float(row[column["Start"]]), float(row[column["End"]])
    tag = row[column["Tag"]]
    return (start + end) / 2, BACKGROUND if tag == "background_background" else tag


def _made(video: str, marks: Sequence[Mark], labels: Sequence[str]) -> tuple[list[str], list[tuple[Mark, dict]]]:
    """Header and rows of new clicks, as `write_clicks` forms them."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clicks.txt"
        write_clicks(path, [ClickTrack(video, tuple(Click(*mark) for mark in marks))], labels)
        header, rows = _rows(path)
    return header, list(zip(marks, (dict(zip(header, row, strict=True)) for row in rows), strict=True))
