"""Plain-text tables, and what may stand in them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield the lines of a table: its headings, then its rows.

    Parameters
    ----------
    columns : sequence of str
        Headings, each after a sign for its side: ``<`` left, ``>`` right.
    rows : sequence of sequence of str
        The cells.

    Examples
    --------
    >>> print(*table(("<layer", ">rank"), [("head", "12"), ("b", "8")]), sep="|")
    layer  rank|head     12|b         8
    """
    sides = [column[0] for column in columns]
    lines = [[column[1:] for column in columns], *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = zip(line, sides, widths, strict=True)
        yield "  ".join(f"{cell:{side}{width}}" for cell, side, width in cells).rstrip()


def grouped(number: int) -> str:
    """Return a number with its thousands apart."""
    return f"{number:,}"


def counted(number: int, noun: str) -> str:
    """Return a number and what it counts.

    Examples
    --------
    >>> counted(1, "tensor"), counted(2000, "tensor")
    ('1 tensor', '2,000 tensors')
    """
    return f"{grouped(number)} {noun}{'' if number == 1 else 's'}"


def printable(text: str) -> str:
    r"""Return a text from a file so that it does nothing to the terminal.

    Examples
    --------
    >>> printable("größe"), printable("red \x1b[31m")
    ('größe', 'red \\x1b[31m')
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
