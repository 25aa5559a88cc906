"""What every form of click file shares: how it is described, times, frame rates, names of videos, JSON."""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import unquote
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from backtal.clicks.clicks import ClickTrack
from backtal.errors import DataError
from backtal.files import VIDEO_SUFFIXES, composed, note

Rates = Mapping[str, float] | float | None


class Mark(NamedTuple):
    """What a file says of a video: something happens from `start` to `end` (seconds), or in one moment.

    `frame` is how long the last frame is shown, in files that count frames and name the last one that belongs.
    """

    video: str
    start: float
    end: float
    label: str
    round: int = 1
    frame: float = 0.0


class Reading:
    """What a file is read with, and what it says beside its marks.

    Attributes:
        given: the one frame rate that was given for all videos; None where each has its own, or nothing is known.
        durations: seconds of each video, where the file says so.
        left: what is left out, and how often.

    Args:
        rates: frames per second, by video or the same for all.
        names: the videos that are known, to recognise those whose name has a folder in it.
    """

    def __init__(self, rates: Rates = None, names: Iterable[str] = ()) -> None:
        self._names = {composed(name): name for name in names}
        self._rates, self._used = rates, dict[str, float]()
        self.given = None if isinstance(rates, Mapping) else rates
        self.durations: dict[str, float] = {}
        self.left: Counter[str] = Counter()

    def rate(self, video: str, where: str) -> float:
        """Frames per second of a video.

        Raises:
            DataError: if it is not known.
        """
        self._used[video] = rate_of(self._rates, video, where)
        return self._used[video]

    def video(self, address: str) -> str:
        r"""The name of a video, from its path or URL: the longest known one that it ends with, else its last part.

        Example:
            >>> Reading(names=["kitchen/day1"]).video("file:///films/kitchen/day1.mp4"), Reading().video("a/day1.mp4")
            ('kitchen/day1', 'day1')
        """
        parts = _path_of(address).split("/")
        ends = (composed("/".join(parts[first:])) for first in range(len(parts)))
        return next((self._names[end] for end in ends if end in self._names), parts[-1])

    def say(self, where: str) -> None:
        """Note what was left out, and which rates were used for what the file does not say."""
        for what, count in (+self.left).items():
            note(f"{where}: left out: {count} {what}")
        if self._used:
            low, high = min(self._used.values()), max(self._used.values())
            source = "as given" if self.given else "as the annotations have it"
            note(f"{where}: frames counted at {low:g}{f' to {high:g}' if high > low else ''} a second, {source}")


class Form(NamedTuple):
    """A form of click file.

    Attributes:
        recognises: whether a file's text is of this form.
        read: text, where it comes from (for messages), what to read it with -> what it says, one after the other.
        write: tracks, the dataset's labels, frame rates -> text; None for what is only read.
    """

    recognises: Callable[[str], bool]
    read: Callable[[str, str, Reading], Iterable[Mark]]
    write: Callable[[Sequence[ClickTrack], Sequence[str], Rates], str] | None


def number(value: Any, where: str, what: str) -> float:
    """A finite number that is not negative, of a text or JSON value.

    Raises:
        DataError: if it is anything else.
    """
    try:
        strange = isinstance(value, bool) or (isinstance(value, str) and ("_" in value or not value.isascii()))
        found = math.nan if strange else float(value)
    except (TypeError, ValueError, OverflowError):
        found = math.nan
    if not 0 <= found < math.inf:
        raise DataError(f"{where}: {what} must be a number that is not negative, found {value!r}")
    return found


def middle(first: float, last: float) -> float:
    """The middle of two numbers, exact where they are equal, however large."""
    return first + (last - first) / 2


def rate_of(rates: Rates, video: str, where: str) -> float:
    """Frames per second of a video.

    Raises:
        DataError: if it is not known.
    """
    rate = rates.get(video) if isinstance(rates, Mapping) else rates
    if not rate or not 0 < rate < math.inf:
        raise DataError(
            f"{where}: the frame rate of video {video} is not known, and this form counts frames; give `fps` in the "
            "annotations, or convert the file with --fps"
        )
    return float(rate)


def _path_of(address: str) -> str:
    r"""The path of a path or URL, with slashes and without the suffix of a video.

    Example:
        >>> _path_of("https://example.org/day%201.mp4?raw=1"), _path_of("videos/day.1"), _path_of("D:\\day1.avi")
        ('https://example.org/day 1', 'videos/day.1', 'D:/day1')
    """
    path = unquote(re.split(r"[?#]", address)[0]) if "://" in address else address
    return without_suffix(path.replace("\\", "/").rstrip("/"))


def without_suffix(name: str) -> str:
    """The name of a video, of which people write that of its file: ``day1.mp4`` is ``day1``."""
    stem, dot, suffix = name.rpartition(".")
    return stem if stem and f"{dot}{suffix}".lower() in VIDEO_SUFFIXES else name


def parse_xml(text: str, where: str) -> Element:
    """The root of an XML text. A document type declaration, which can hide things, is refused.

    Raises:
        DataError: if it is not XML.
    """
    if "<!DOCTYPE" in text:
        raise DataError(f"{where}: holds a document type declaration: not read")
    try:
        return ElementTree.fromstring(text)
    except ElementTree.ParseError as failure:
        raise DataError(f"{where}: not valid XML: {failure}") from None


def expect(kind: type, value: Any, where: str, what: str) -> Any:
    """`value`, if it is a dict, list or str as it should be.

    Raises:
        DataError: if it is not.
    """
    if not isinstance(value, kind):
        names = {dict: "an object", list: "a list", str: "a text"}
        raise DataError(f"{where}: {what} must be {names[kind]}, found {type(value).__name__}")
    return value
