"""The few pieces of HTML that a report is made of. Whatever is not `Html` already is escaped."""

import base64
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from backtal.plot.text import told

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Html(str):
    """Text that is HTML already."""


STYLE = """
:root { color-scheme: light; --ink: #222; --faint: #666; --line: #ddd; --accent: #0072b2; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 74rem; padding: 1.5rem 1.25rem 4rem; color: var(--ink); background: #fff;
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", sans-serif; }
body, td { overflow-wrap: anywhere; } h1 { font-size: 1.7rem; margin: 0; }
h2 { margin: 2.8rem 0 .5rem; padding-top: .6rem; border-top: 2px solid var(--ink); }
h3 { margin: 1.8rem 0 .3rem; } p { max-width: 52rem; } a { color: var(--accent); }
nav { margin: .6rem 0 0; } nav a { margin-right: 1.1rem; }
.faint { color: var(--faint); } .small { font-size: .88rem; }
.tiles { display: flex; flex-wrap: wrap; gap: .8rem; margin: 1.2rem 0; }
.tile { border: 1px solid var(--line); border-radius: 8px; padding: .6rem 1rem; min-width: 8.5rem; }
.tile b { display: block; font-size: 1.6rem; line-height: 1.25; font-variant-numeric: tabular-nums; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: .6rem 0; }
th, td { padding: .18rem .7rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; } th { font-weight: 600; }
thead th { border-bottom: 2px solid var(--ink); } tr.total td { font-weight: 600; }
table.settings td { white-space: normal; text-align: left; vertical-align: top; }
.wide { overflow-x: auto; } .pair > * { max-width: 100%; } pre { overflow-x: auto; }
.pair { display: flex; flex-wrap: wrap; gap: 0 2.5rem; align-items: flex-start; }
img { max-width: 100%; min-width: var(--least); height: auto; display: block; margin: .6rem 0; }
summary { cursor: pointer; color: var(--accent); } code { font-size: .92em; }
@media print { img { min-width: 0; } nav { display: none; }
  h2, h3 { break-after: avoid; } img, table { break-inside: avoid; } }
"""


def html(content: Any) -> Html:
    """Escape text; several pieces are put together."""
    if isinstance(content, Html):
        return content
    if isinstance(content, list | tuple | Iterator):
        return Html("".join(html(piece) for piece in content))
    return Html(escape(str(content)))


def tag(name: str, *content: Any, **attributes: str) -> Html:
    """An element; a trailing underscore of an attribute's name is dropped.

    Example:
        >>> tag("td", "a < b", class_="text")
        '<td class="text">a &lt; b</td>'
    """
    written = "".join(f' {key.rstrip("_")}="{escape(value)}"' for key, value in attributes.items())
    return Html(f"<{name}{written}>{html(content)}</{name}>")


def settings(heading: str, values: Mapping[str, Any]) -> Html:
    """A heading and a table of names and values."""
    rows = [tag("tr", tag("td", name), tag("td", value)) for name, value in values.items()]
    return tag("div", tag("h3", heading), tag("table", rows, class_="settings"))


def table(head: Sequence[Any], rows: Iterable[Sequence[Any]], *, total: bool = False) -> Html:
    """A table; the last row is set apart where it is a total."""
    made = [[tag("td", cell) for cell in row] for row in rows]
    body = [tag("tr", cells) for cells in made]
    if total and made:
        body[-1] = tag("tr", made[-1], class_="total")
    inside = tag("table", tag("thead", tag("tr", [tag("th", cell) for cell in head])), tag("tbody", body))
    return tag("div", inside, class_="wide")


def picture(figure: "Figure", alt: str) -> Html:
    """A figure as an image that is part of the page, fine enough for print; on a small screen it scrolls sideways."""
    buffer = io.BytesIO()
    with told():
        figure.savefig(buffer, format="png", dpi=192, metadata={"Software": None})
    data, width = base64.b64encode(buffer.getvalue()).decode("ascii"), round(96 * figure.get_figwidth())
    image = f'<img alt="{escape(alt)}" width="{width}" src="data:image/png;base64,{data}">'
    return tag("div", Html(image), class_="wide", style=f"--least: {min(width, 640)}px")


def page(title: str, body: Any) -> Html:
    """A whole document that needs no network."""
    head = (
        Html('<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'),
        tag("title", title),
        tag("style", Html(STYLE)),
    )
    return Html("<!doctype html>\n" + tag("html", tag("head", head), tag("body", body), lang="en") + "\n")
