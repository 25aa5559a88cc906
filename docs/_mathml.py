"""Formulas become MathML when the site is built, which browsers draw by themselves: no script and no network."""

import re

from latex2mathml.converter import convert

_CODE = re.compile(r"(^```.*?^```|`[^`\n]+`)", re.MULTILINE | re.DOTALL)
_BLOCK, _INLINE = re.compile(r"\$\$(.+?)\$\$", re.DOTALL), re.compile(r"(?<![\\$\w])\$([^$\n]+?)\$(?!\w)")


def on_page_markdown(markdown: str, **_) -> str:
    """Replace ``$$...$$`` and ``$...$`` outside of code."""
    parts = _CODE.split(markdown)
    parts[::2] = [_INLINE.sub(_inline, _BLOCK.sub(_block, text)) for text in parts[::2]]
    return "".join(parts)


def _block(found: re.Match) -> str:
    return f'\n<div class="formula">{convert(found[1].strip(), display="block")}</div>\n'


def _inline(found: re.Match) -> str:
    return f'<span class="formula">{convert(found[1])}</span>'
