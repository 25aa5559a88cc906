"""Where clicks lie in their background stretches, as the paper's Fig. 7."""

from typing import TYPE_CHECKING, Any

import numpy as np

from backtal.data.click_stats import BINS, ClickReport
from backtal.errors import DataError
from backtal.plot.style import INK, TRUTH, new_figure, style, tidy
from backtal.plot.text import finished, legend

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Kolmogorov's distribution: 5 % of uniform samples lie farther off than this over the root of their number.
_CRITICAL = 1.358


def click_positions(report: ClickReport, *, title: str | None = None) -> "Figure":
    """The positions of background clicks in their stretches, 0 at the start and 1 at the end, by annotator.

    Left: the share of the clicks in each tenth of the stretch (Fig. 7). Right: how much larger the share up to each
    position is than if clicks were uniform; uniform ones stay within the grey band in 19 of 20 cases.

    Args:
        report: what `backtal.data.click_report` found.
        title: heading.

    Raises:
        DataError: if no annotator clicked a background stretch.
    """
    annotators = {name: stats for name, stats in report.annotators.items() if len(stats.positions)}
    if not annotators:
        raise DataError("no background click to draw: the picture needs clicks and annotated actions")
    figure = new_figure(9, 3.6)
    left, right = figure.subplots(1, 2, gridspec_kw={"width_ratios": [3, 2]})
    width, tenths = 0.8 / len(annotators), (np.arange(BINS) + 0.5) / BINS
    handles: list[Any] = [left.axhline(100 / BINS, color=INK, linestyle=":", linewidth=1)]
    names = ["uniform"]
    fewest = min(len(stats.positions) for stats in annotators.values())
    right.axhspan(*(sign * 100 * _CRITICAL / fewest**0.5 for sign in (-1, 1)), color=TRUTH)
    right.axhline(0, color=INK, linestyle=":", linewidth=1)
    for index, (name, stats) in enumerate(annotators.items()):
        look = style(index)
        place = tenths + (index - (len(annotators) - 1) / 2) * width / BINS
        bar = {"color": look.colour, "hatch": look.hatch, "edgecolor": "white", "linewidth": 0.5}
        handles.append(left.bar(place, 100 * stats.histogram, width / BINS, **bar))
        names.append(f"{name}: {len(stats.positions)} clicks, KS distance {stats.uniformity[0]:.3f}")
        excess = 100 * (np.arange(1, len(stats.positions) + 1) / len(stats.positions) - stats.positions)
        right.plot(stats.positions, excess, color=look.colour, linestyle=look.dash, linewidth=1.2)
    reach = max(map(abs, right.get_ylim()))
    right.set_ylim(-reach, reach)
    for ax, y in ((left, "share of the clicks (%)"), (right, "up to there, beyond uniform (points)")):
        ax.set_xlim(0, 1)
        tidy(ax, x="position in the background stretch", y=y)
    left.set_label("histogram")
    right.set_label("excess")
    legend(figure, handles, names, loc="outside lower center", ncols=2, frameon=False, fontsize=8.5)
    if title:
        figure.suptitle(title, fontsize=10, x=0.01, ha="left")
    return finished(figure)
