"""One annotator's click file, changed video by video: every row that did not change stays as it is."""

import csv
import tempfile
from collections.abc import Collection, Sequence
from pathlib import Path

from backtal.clicks.clicks import Click, ClickTrack
from backtal.clicks.files import parse_clicks, write_clicks
from backtal.clicks.forms.sheet import rows
from backtal.errors import DataError
from backtal.files import atomic_path

Mark = tuple[float, str]  # second and label
_Row = tuple[str, Mark, list[str]]  # video, click, and the row as it stands in the file
_NEEDED = {"URLID", "Tag", "Start", "End"}


def read_marks(path: Path) -> dict[str, list[Mark]]:
    """The clicks in a file by video, in order of time; none if there is no file.

    Raises:
        DataError: if the file is malformed, or in a form that the page does not write.
    """
    found: dict[str, set[Mark]] = {}
    for video, mark, _ in _rows(path)[1]:
        found.setdefault(video, set()).add(mark)
    return {video: sorted(marks) for video, marks in found.items()}


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
    header, found = _rows(path)
    place = next((index for index, (name, _, _) in enumerate(found) if name == video), len(found))
    before, after = ([row for name, _, row in part if name != video] for part in (found[:place], found[place:]))
    kept = [(mark, row) for name, mark, row in found if name == video and mark in marks]
    new_header, made = _made(video, sorted(set(marks) - {mark for mark, _ in kept}), labels)
    header = header or new_header
    for _, mark, row in made:
        fields = dict(zip(new_header, row, strict=True))
        kept.append((mark, [fields.get(name, "") for name in header]))
    kept.sort(key=lambda item: item[0])
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8-sig", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *before, *(row for _, row in kept), *after])


def _rows(path: Path) -> tuple[list[str], list[_Row]]:
    """Header and rows of a file; nothing if there is no file."""
    if not path.exists():
        return [], []
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as failure:
        raise DataError(f"{path}: not a text file: {failure}") from failure
    header, *lines = [row for _, row in rows(text, str(path))] or [[]]
    if not set(header) >= _NEEDED:
        raise DataError(f"{path}: not in the form that `backtal annotate` writes: choose another annotator's name")
    clicks = parse_clicks(text, str(path))
    return header, [(video, (c.time, c.label), row) for (video, c), row in zip(clicks, lines, strict=True)]


def _made(video: str, marks: Sequence[Mark], labels: Sequence[str]) -> tuple[list[str], list[_Row]]:
    """Header and rows of new clicks, as `write_clicks` forms them."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clicks.txt"
        write_clicks(path, [ClickTrack(video, tuple(Click(*mark) for mark in marks))], labels)
        return _rows(path)
