"""How every picture looks: colours, lines and hatching that colour-blind readers and grey print keep apart."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from backtal.errors import DataError, install
from backtal.files import atomic_path
from backtal.plot.text import told
from backtal.segments.segments import Localization

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette, which colour-blind readers can tell apart; hatching and dashes repeat it for grey print.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C7A00")
HATCHES = ("", "////", "....", r"\\\\", "xxxx", "||||", "oo")
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.2)), (0, (1.5, 1)), (0, (6, 1, 1.5, 1)), (0, (3, 1)), (0, (8, 2)), "-.")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
TRUTH, FOREGROUND, INK = "#E4E4E4", "#777777", "#222222"


class Style(NamedTuple):
    """How a class or a model looks."""

    colour: str
    hatch: str
    dash: Any
    marker: str


def style(index: int) -> Style:
    """The look of the class or model of this number; after every seven the same colours get other patterns."""
    around, place = divmod(index, len(COLOURS))
    pattern = (place + around) % len(HATCHES)
    return Style(COLOURS[place], HATCHES[pattern], DASHES[pattern], MARKERS[pattern])


def styles_of(labels: Sequence[str], videos: Iterable[Localization]) -> dict[str, Style]:
    """A style for every label that occurs: its place among all labels decides, unless the colour is there already."""
    occurring = {segment.label for video in videos for segment in video}
    order = list(dict.fromkeys([*labels, *sorted(occurring)]))
    places: dict[str, int] = {}
    for place, label in enumerate(order):
        if label in occurring:
            free = set(range(len(COLOURS))) - {other % len(COLOURS) for other in places.values()}
            places[label] = place if place % len(COLOURS) in free or not free else min(free)
    return {label: style(place) for label, place in places.items()}


def new_figure(width: float, height: float) -> "Figure":
    """An empty figure of this size in inches, without a window or global state.

    Raises:
        ImportError: if matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
        from matplotlib.layout_engine import ConstrainedLayoutEngine
    except ImportError:
        raise ImportError(f"pictures need matplotlib: {install('plot')}") from None
    return Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(hspace=0.0, h_pad=0.05))


def save(figure: "Figure", path: str | Path, dpi: int = 150) -> None:
    """Write a picture, atomically.

    Args:
        figure: the picture.
        path: its ending says in which form: ``.png``, ``.svg``, ``.pdf``.
        dpi: dots per inch, where it has any.

    Raises:
        DataError: if matplotlib does not know the ending.
    """
    kinds = figure.canvas.get_supported_filetypes()
    ending = Path(path).suffix.lstrip(".").lower()
    if ending not in kinds:
        raise DataError(f"{path}: the ending must name a form of picture: {', '.join(sorted(kinds))}")
    with atomic_path(path) as temporary, told():
        figure.savefig(temporary, format=ending, dpi=dpi)


def tidy(ax: "Axes", title: str = "", x: str = "", y: str = "", pad: float = 6) -> None:
    """Name the axes and take away what is not needed: upper and right border."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(labelsize=8, colors=INK)
    ax.set_xlabel(x, fontsize=9, color=INK)
    ax.set_ylabel(y, fontsize=9, color=INK)
    if title:
        ax.set_title(title, loc="left", fontsize=9.5, fontweight="bold", color=INK, pad=pad)
