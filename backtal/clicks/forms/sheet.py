"""Tables as programs write them: commas, semicolons or tabs between fields, decimal commas, empty rows."""

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from backtal.errors import DataError, name_some

SEPARATORS = (",", ";", "\t")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_DECIMAL_COMMA = re.compile(r"([+-]?\d+),(\d+)", re.ASCII)
_HINT = re.compile(r"\A(sep=.|#TYPE [^\r\n]*)(?=[\r\n])")  # Excel's first line, and PowerShell's


def rows(text: str, where: str, separator: str = ",", *, breaks: bool = False) -> Iterator[tuple[str, list[str]]]:
    """The rows of a table that hold something, each with where it ends.

    Args:
        text: the table.
        where: what the places begin with.
        separator: what stands between fields.
        breaks: whether a field in quotation marks may go on in the next line.

    Raises:
        DataError: where the text is no table.
    """
    reader = csv.reader(io.StringIO(_HINT.sub("", text, count=1), newline=""), delimiter=separator, strict=True)
    try:
        for row in reader:
            place = f"{where}, line {reader.line_num}"
            if not breaks and any("\n" in field or "\r" in field for field in row):
                raise DataError(f"{place}: a field runs over several lines: is a quotation mark missing?")
            if any(field.strip() for field in row):
                yield place, row
    except csv.Error as failure:
        raise DataError(f"{where}, line {reader.line_num}: {failure}") from None


def first_row(text: str, separator: str) -> list[str]:
    """The fields of the first row, without the blanks around them; none where the text is no table."""
    try:
        return next(([field.strip() for field in row] for _, row in rows(text, "", separator)), [])
    except DataError:
        return []


def records(text: str, where: str, separator: str) -> Iterator[tuple[str, dict[str, str]]]:
    """The rows below the first, by the column that it names; see `by_column`."""
    return by_column(rows(text, where, separator), where, separator)


def by_column(
    lines: Iterator[tuple[str, list[str]]], where: str, separator: str
) -> Iterator[tuple[str, dict[str, str]]]:
    """Rows by column, of which the first names the columns.

    Raises:
        DataError: for a column that is there twice, a row that is longer or shorter than the header, and a field
            whose column has no name (but for the first: row numbers).
    """
    header = [name.strip() for name in next(lines)[1]]
    named = [name for name in header if name]
    alike = [name.casefold() for name in named]
    if twice := [name for name in named if alike.count(name.casefold()) > 1]:
        raise DataError(f"{where}: the column {name_some(dict.fromkeys(twice))} is there twice")
    width = max(index for index, name in enumerate(header) if name) + 1
    for place, row in lines:
        filled = max(index for index, field in enumerate(row) if field.strip()) + 1
        if filled > width:
            advice = "; is the decimal mark a comma?" if separator == "," else ""
            raise DataError(f"{place}: {filled} fields, but the header has {width}{advice}")
        if len(row) < width:
            raise DataError(f"{place}: {len(row)} fields, but the header has {width}; is the file cut off?")
        if nameless := [field for name, field in zip(header[1:], row[1:], strict=False) if field.strip() and not name]:
            raise DataError(f"{place}: {nameless[0]!r} stands in a column without a name")
        yield place, {name: field for name, field in zip(header, row, strict=False) if name}


def decimal(text: str, separator: str) -> float:
    """A number of a table, with a decimal point; or a decimal comma, where it can be nothing else.

    Raises:
        ValueError: if it is anything else. ``1,234`` may be a thousand where semicolons do not say that commas are
            decimal.

    Example:
        >>> decimal("3,5", ";"), decimal("3.5", ",")
        (3.5, 3.5)
    """
    text = text.strip()
    if comma := _DECIMAL_COMMA.fullmatch(text):
        if separator == ";" or len(comma[2]) != 3:
            return float(f"{comma[1]}.{comma[2]}")
    elif _NUMBER.fullmatch(text):
        return float(text)
    raise ValueError(f"{text!r} is not a number")


def table(lines: Iterable[Sequence[Any]]) -> str:
    """Rows as CSV."""
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue()
