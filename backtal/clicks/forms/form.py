"""What every form of click file shares: how it is described, times, frame rates, names of videos, JSON."""

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, NamedTuple
from urllib.parse import unquote

from backtal.clicks.clicks import Click, ClickTrack
from backtal.errors import DataError
from backtal.files import VIDEO_SUFFIXES

Rates = Mapping[str, float] | float | None


class Form(NamedTuple):
    """A form of click file.

    Attributes:
        recognises: whether a file's text is of this form.
        read: text, where it comes from (for messages), frame rates -> video and click, one after the other.
        write: tracks, the dataset's labels, frame rates -> text.
    """

    recognises: Callable[[str], bool]
    read: Callable[[str, str, Rates], Iterable[tuple[str, Click]]]
    write: Callable[[Sequence[ClickTrack], Sequence[str], Rates], str]


def number(value: Any, where: str, what: str) -> float:
    """A finite number that is not negative, of a text or JSON value.

    Raises:
        DataError: if it is anything else.
    """
    try:
        found = math.nan if isinstance(value, bool) else float(value)
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


def video_of(address: str) -> str:
    r"""The name of a video, from its path or URL.

    Example:
        >>> video_of("https://example.org/day%201.mp4?raw=1"), video_of("videos/day.1"), video_of("D:\\day1.avi")
        ('day 1', 'day.1', 'day1')
    """
    path = unquote(re.split(r"[?#]", address)[0]) if "://" in address else address
    name = PurePosixPath(path.replace("\\", "/")).name
    stem, dot, suffix = name.rpartition(".")
    return stem if stem and f"{dot}{suffix}".lower() in VIDEO_SUFFIXES else name


def parse_json(text: str, where: str) -> Any:
    """The content of a JSON text.

    Raises:
        DataError: if it is none.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as failure:
        raise DataError(f"{where}: not valid JSON: {failure}") from None


def expect(kind: type, value: Any, where: str, what: str) -> Any:
    """`value`, if it is a dict, list or str as it should be.

    Raises:
        DataError: if it is not.
    """
    if not isinstance(value, kind):
        names = {dict: "an object", list: "a list", str: "a text"}
        raise DataError(f"{where}: {what} must be {names[kind]}, found {type(value).__name__}")
    return value
