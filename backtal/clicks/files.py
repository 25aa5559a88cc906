"""Click files: BackTAL's, those of its peers, and what annotation tools export; read by content, written by name.

``docs/clicks.md`` says which facts about each form come from its documentation and which are assumed.
"""

import math
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from backtal.clicks.clicks import BACKGROUND, Click, ClickTrack
from backtal.clicks.forms import boris, cvat, elan, label_studio, tables, via
from backtal.clicks.forms.form import Form, Mark, Rates, Reading, middle
from backtal.errors import DataError
from backtal.files import decode_text, note, read_text, write_text

__all__ = ["BACKGROUND_NAMES", "FORMS", "parse_clicks", "read_clicks", "write_clicks"]

BACKGROUND_NAMES = (BACKGROUND, "background_background")
FORMS: dict[str, Form] = {
    "backtal": tables.BACKTAL,
    "table": tables.PLAIN,
    "sfnet": tables.SFNET,
    "lacp": tables.LACP,
    "via": via.PROJECT,
    "via-csv": via.TABLE,
    "cvat": cvat.VIDEO,
    "label-studio": label_studio.TASKS,
    "boris": boris.PROJECT,
    "boris-table": boris.TABLE,
    "elan": elan.DOCUMENT,
}


def read_clicks(
    *paths: str | Path,
    frame_rates: Rates = None,
    background: Collection[str] = BACKGROUND_NAMES,
    videos: Collection[str] = (),
) -> dict[str, ClickTrack]:
    r"""Read click files and put together the clicks of each video.

    The content of a file tells its form, one of `FORMS`: BackTAL's CSV, tables of video and second (with a header
    ``video,second,label``, or background clicks without one), SF-Net's action clicks (``video,second,label`` without a
    header), the action clicks of LACP and HR-Pro (columns ``class``, ``video_id`` and ``point``, a frame number),
    projects and CSV exports of VIA 3, CVAT's XML, Label Studio's JSON, projects and tables of BORIS, documents of ELAN.
    What has a length, such as a row whose ``Start`` and ``End`` differ, counts as one click in its middle. What is left
    out or guessed is logged as a warning of the logger ``backtal``.

    Args:
        paths: the files.
        frame_rates: frames per second, by video or the same for all, for files that count frames. Label Studio counts
            in a rate of its own: for its tasks only one for all is used.
        background: labels that mean background, in upper or lower case.
        videos: names of the dataset's videos. Other programs name files: of these names the longest is meant that the
            path of the file ends with, and where none fits, the last part of the path.

    Raises:
        DataError: if a file is missing or an entry is malformed; the message names file and line or field.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "points.csv"
        >>> _ = path.write_text("class,video_id,point\njump,v1,45\n")
        >>> read_clicks(path, frame_rates={"v1": 30.0})["v1"].times("jump")
        [1.5]
    """
    clicks: dict[str, list[Click]] = {}
    for path in map(Path, paths):
        text = read_text(path, what="click file")
        for video, click in parse_clicks(text, str(path), frame_rates, background, videos):
            clicks.setdefault(video, []).append(click)
    return {video: ClickTrack(video, tuple(found)) for video, found in clicks.items()}


def write_clicks(
    path: str | Path,
    tracks: Iterable[ClickTrack],
    labels: Sequence[str],
    *,
    form: str = "backtal",
    frame_rates: Rates = None,
) -> None:
    r"""Write a click file, atomically, and only if it reads back as the same clicks.

    Forms that count frames keep the nearest one; only BackTAL's keeps the rounds. Videos without clicks are left out.

    Args:
        path: the file.
        tracks: clicks by video.
        labels: the dataset's; in BackTAL's form a background click has the index ``C = len(labels)`` as TagID.
        form: one of `FORMS`.
        frame_rates: frames per second, by video or the same for all: for ``lacp``, ``cvat`` and ``label-studio``.

    Raises:
        DataError: for a label that is not listed, a missing frame rate, or a name that the form cannot hold.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "clicks.csv"
        >>> write_clicks(path, [ClickTrack("v1", (Click(1.5, "jump"),))], ["jump"], form="sfnet")
        >>> path.read_text()
        'v1,1.5,jump\n'
    """
    write = FORMS[form].write if form in FORMS else None
    if write is None:
        written = [name for name, known in FORMS.items() if known.write]
        raise DataError(f"unknown form of click file {form!r}; known are {', '.join(written)}")
    clicks: dict[str, tuple[Click, ...]] = {}
    known = {*labels, BACKGROUND}
    for track in tracks:
        for click in track.clicks:
            if click.label not in known:
                raise DataError(f"video {track.video_id}: click with unknown label {click.label!r}")
        if len(track):
            clicks[track.video_id] = clicks.get(track.video_id, ()) + track.clicks
    text = write([ClickTrack(*item) for item in clicks.items()], labels, frame_rates)
    _check_copy(text, clicks, str(path), form)
    later = sum(click.round != 1 for found in clicks.values() for click in found)
    if later and form != "backtal":
        note(f"{path}: the form {form} keeps no annotation rounds: {later} click(s) of later ones are among the others")
    write_text(path, text)


def parse_clicks(
    text: str,
    where: str,
    frame_rates: Rates = None,
    background: Collection[str] = BACKGROUND_NAMES,
    videos: Collection[str] = (),
) -> Iterator[tuple[str, Click]]:
    """The clicks that the text of a click file holds, in its order, each with its video; `where` begins the messages.

    Raises:
        DataError: as `read_clicks`.
    """
    for mark in parse_marks(text, where, Reading(frame_rates, videos), background):
        yield mark.video, Click(middle(mark.start, mark.end), mark.label, mark.round)


def parse_marks(
    text: str, where: str, reading: Reading, background: Collection[str] = BACKGROUND_NAMES
) -> Iterator[Mark]:
    """All that the text of a file in one of the `FORMS` says of videos, from when to when; see `parse_clicks`."""
    yield from _marks(text, where, reading, background)
    reading.say(where)


def _marks(text: str, where: str, reading: Reading, background: Collection[str]) -> Iterator[Mark]:
    form = next((form for form in FORMS.values() if form.recognises(text)), None)
    if form is None and not text.strip():
        raise DataError(f"{where}: is empty: a table of clicks begins with the header video,second")
    if form is None:
        raise DataError(
            f"{where}: not a click file in a known form ({', '.join(FORMS)}): a table begins with the header "
            f"video,second or video,second,label, BackTAL's with {','.join(tables.FIELDS)}"
        )
    names = {name.casefold() for name in background}
    for mark in form.read(text, where, reading):
        if not math.isfinite(mark.end):
            raise DataError(f"{where}: video {mark.video}: a click at {mark.end} s")
        if mark.end < mark.start:
            raise DataError(f"{where}: video {mark.video}: {mark.label} from {mark.start:g} to {mark.end:g} s")
        yield mark._replace(label=BACKGROUND) if mark.label.casefold() in names else mark


def _check_copy(text: str, clicks: Mapping[str, Sequence[Click]], where: str, form: str) -> None:
    """Refuse to write what would not be read as it was: names with line breaks, slashes, a label `Background` ..."""
    try:
        copy = decode_text(text.encode("utf-8"), where)
        # At any rate: no time is compared, and a video that the copy calls otherwise has none.
        marks = _marks(copy, where, Reading(1.0), BACKGROUND_NAMES)
        read = Counter((mark.video, mark.label) for mark in marks)
    except (UnicodeEncodeError, DataError) as failure:
        raise DataError(f"these clicks cannot be written in the form {form}: {failure}") from None
    meant = Counter((video, click.label) for video, found in clicks.items() for click in found)
    if wrong := [*(meant - read), *(read - meant)]:
        video, label = wrong[0]
        raise DataError(f"{where}: the form {form} cannot hold video {video!r} with label {label!r} as they are")
