"""Texts of users in pictures: drawn as they are, whatever signs they hold and whatever script they are in."""

import logging
import unicodedata
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

from backtal.errors import name_some
from backtal.files import note

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Of the fonts that have a letter, those made for many scripts first; fonts of coloured pictures cannot be drawn.
_WIDE = ("Noto Sans", "WenQuanYi", "Droid Sans Fallback", "Hiragino", "PingFang", "Yu Gothic", "Malgun", "Nanum")
_WIDE += ("Microsoft YaHei", "SimHei", "Arial Unicode", "FreeSans", "GNU Unifont", "Unifont")
_UNFIT = ("Emoji", "LastResort", "Last Resort")


def finished(figure: "Figure") -> "Figure":
    """The figure, with its texts drawn as they are: no formula between dollar signs, letters of any script.

    Letters that the usual font lacks are taken from other fonts of the machine; which letters none has is logged.
    """
    from matplotlib.font_manager import FontProperties, findfont
    from matplotlib.text import Text

    texts: list[Any] = figure.findobj(Text)
    letters = {letter for text in texts for letter in text.get_text() if letter.isprintable() and not letter.isspace()}
    usual = FontProperties().get_family()
    lacking = {ord(letter) for letter in letters} - _letters_of(findfont(FontProperties()))
    found, without = _fonts_with(frozenset(lacking))
    for text in texts:
        text.set_parse_math(False)
        if found:
            text.set_fontfamily([*usual, *found])
    if without:
        _tell(frozenset(without))
    return figure


@contextmanager
def told() -> Iterator[None]:
    """Saves pictures without matplotlib's lines, one a letter, on what `finished` has said or chosen already."""
    fonts = logging.getLogger("matplotlib.font_manager")
    level = fonts.level
    fonts.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", r"Glyph .* missing from", UserWarning)
            yield
    finally:
        fonts.setLevel(level)


@cache
def _tell(codes: frozenset[int]) -> None:
    """Once, which letters no font has."""
    letters = sorted(map(chr, codes))
    scripts = sorted({unicodedata.name(letter, "unknown").split()[0] for letter in letters})
    note(
        f"no font of this machine has {name_some(letters)} ({name_some(scripts).lower()}): boxes are drawn in their "
        "place; install a font that has them, such as Noto (Debian and Ubuntu: apt install fonts-noto-core "
        "fonts-noto-cjk), and draw again"
    )


def legend(place: Any, handles: Sequence[Any], names: Iterable[str], **options: Any) -> None:
    """A legend of a figure or of axes; matplotlib's own leaves out names that begin with an underscore."""
    names = list(names)
    made = place.legend(handles, [f"{index}" for index in range(len(names))], **options)
    for text, name in zip(made.get_texts(), names, strict=True):
        text.set_text(name)


def width_of(text: str) -> int:
    """How many letters wide a text is; ideographs and their like are twice as wide as Latin letters.

    Example:
        >>> width_of("jump"), width_of("跳远")
        (4, 4)
    """
    wide = sum(unicodedata.east_asian_width(letter) in "WF" for letter in text)
    return wide + sum(not unicodedata.combining(letter) for letter in text)


def _fonts_with(codes: frozenset[int]) -> tuple[list[str], set[int]]:
    """Names of fonts of this machine that together have the letters, as far as there are any, and the letters left."""
    found, left = [], set(codes)
    for name, path in _fonts() if left else ():
        if gained := left & _letters_of(path):
            found.append(name)
            left -= gained
            if not left:
                break
    return found, left


def _fonts() -> Iterator[tuple[str, str]]:
    """Name and file of each upright font of the machine, the likely ones first."""
    from matplotlib.font_manager import fontManager

    upright = [font for font in fontManager.ttflist if font.style == "normal"]
    known = {font.name: font.fname for font in sorted(upright, key=lambda font: font.weight in (400, "normal"))}
    likely = sorted(known, key=lambda name: (not name.startswith(_WIDE), name))
    return ((name, known[name]) for name in likely if not any(word in name for word in _UNFIT))


@cache
def _letters_of(path: str) -> frozenset[int]:
    from matplotlib.ft2font import FT2Font

    try:
        return frozenset(FT2Font(path).get_charmap())
    except (OSError, RuntimeError):  # a damaged font of the machine
        return frozenset()
