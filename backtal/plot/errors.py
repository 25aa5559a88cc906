"""The diagnosis as a picture: kinds of error, what each costs, which instances are missed."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from backtal.evaluation.diagnose import ERRORS, KINDS, Diagnosis
from backtal.plot.style import HATCHES, INK, Style, new_figure, style, tidy
from backtal.plot.text import finished, legend

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLOURS = ("#009E73", "#56B4E9", "#CC79A7", "#E69F00", "#0072B2", "#D55E00")
_STYLES = {
    kind: Style(colour, HATCHES[i], "-", "o") for i, (kind, colour) in enumerate(zip(KINDS, _COLOURS, strict=True))
}


def diagnosis_figure(diagnoses: Mapping[str, Diagnosis] | Diagnosis, *, title: str | None = None) -> "Figure":
    """Kinds of prediction, gains and missed instances, a row for each model.

    Left: of the predictions ranked up to G, from G to 2G and so on, the share of each kind (G: the instances of a
    class). Middle: the mAP gained without the errors of a kind. Right: the share of instances that are missed.

    Args:
        diagnoses: of one model, or by the model's name.
        title: heading.

    Example:
        >>> from backtal import Localization, Segment
        >>> from backtal.evaluation import diagnose
        >>> video = Localization("v", 9.0, (Segment(1, 3, "jump"),))
        >>> [axes.get_label() for axes in diagnosis_figure(diagnose([video], [video])).axes]
        ['kinds', 'gain', 'missed']
    """
    named = {"": diagnoses} if isinstance(diagnoses, Diagnosis) else dict(diagnoses)
    figure = new_figure(11, 3.7 * len(named) + 0.4)
    grid = figure.subplots(len(named), 3, squeeze=False, gridspec_kw={"width_ratios": [4, 3, 5]})
    for row, (name, diagnosis) in zip(grid, named.items(), strict=True):
        prefix = f"{name}: " if name else ""
        _draw_kinds(row[0], diagnosis, prefix)
        _draw_gain(row[1], diagnosis)
        _draw_missed(row[2], diagnosis)
        for ax, label in zip(row, ("kinds", "gain", "missed"), strict=True):
            ax.set_label(prefix + label)
    handles, names = grid[0, 0].get_legend_handles_labels()
    legend(figure, handles, names, loc="outside lower center", ncols=6, frameon=False, fontsize=8.5, handleheight=1.1)
    if title:
        figure.suptitle(title, fontsize=10, x=0.01, ha="left")
    return finished(figure)


def _draw_kinds(ax: "Axes", diagnosis: Diagnosis, prefix: str) -> None:
    shares = 100 * diagnosis.counts / np.maximum(diagnosis.counts.sum(axis=1, keepdims=True), 1e-12)
    multiples = np.arange(1, len(shares) + 1)
    bottom = np.zeros(len(shares))
    for kind, share in zip(KINDS, shares.T, strict=True):
        look = _STYLES[kind]
        ax.bar(
            multiples,
            share,
            0.86,
            bottom=bottom,
            color=look.colour,
            hatch=look.hatch,
            edgecolor="white",
            linewidth=0.5,
            label=kind,
        )
        bottom = bottom + share
    ax.set_xticks(multiples, [f"{m}G" for m in multiples])
    ax.set_ylim(0, 100)
    tidy(ax, f"{prefix}kinds of prediction", x="rank by score", y="share of predictions (%)")


def _draw_gain(ax: "Axes", diagnosis: Diagnosis) -> None:
    gains = [100 * diagnosis.gain[kind] for kind in ERRORS]
    for place, (kind, gain) in enumerate(zip(ERRORS, gains, strict=True)):
        look = _STYLES[kind]
        ax.barh(place, gain, 0.7, color=look.colour, hatch=look.hatch, edgecolor="white")
        ax.annotate(
            f"{gain:+.1f}", (gain, place), (3, 0), textcoords="offset points", va="center", fontsize=8, color=INK
        )
    ax.set_yticks(range(len(ERRORS)), ERRORS)
    ax.invert_yaxis()
    ax.set_xlim(min(0, *gains), max(1.0, 1.25 * max(gains)))
    tidy(ax, "gain without such errors", x=f"mAP (%), from {100 * diagnosis.mean_ap:.1f}")


def _draw_missed(ax: "Axes", diagnosis: Diagnosis) -> None:
    place, ticks = 0, []
    for index, (name, groups) in enumerate(diagnosis.missed.items()):
        look, first = style(index), place
        for group in groups:
            if group.instances:
                share = 100 * group.missed
                ax.bar(place, share, 0.8, color=look.colour, hatch=look.hatch, edgecolor="white")
                text = f"{share:.0f}"
                ax.annotate(
                    text, (place, share), (0, 2), textcoords="offset points", ha="center", fontsize=7, color=INK
                )
                ticks.append((place, f"{group.name}  (n={group.instances})"))
                place += 1
        ax.text((first + place - 1) / 2, 1.02, name, transform=ax.get_xaxis_transform(), ha="center", fontsize=8.5)
        place += 0.6
    ax.axhline(100 * diagnosis.missed_share, color=INK, linestyle=":", linewidth=1)
    ax.set_xticks([t for t, _ in ticks], [t for _, t in ticks], rotation=60, ha="right", rotation_mode="anchor")
    highest = max(100 * group.missed for groups in diagnosis.missed.values() for group in groups)
    ax.set_ylim(0, max(10.0, 1.2 * highest))
    tidy(ax, "missed instances, by", y="share of the group (%)", pad=20)
    ax.tick_params(axis="x", labelsize=7)
