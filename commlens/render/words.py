"""Pieces every text page is made of: the console, numbers with units, bars, plain tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import IO

from rich import box
from rich.console import Console, RenderableType
from rich.segment import Segment, Segments
from rich.table import Table

from commlens.analyzers.numerals import counted as counted
from commlens.analyzers.steps import INFERRED

FILE_WIDTH = 100
NOT_KNOWN = "-"
_UNITS = ("kB", "MB", "GB", "TB")


def open_console(stream: IO[str], width: int | None = None) -> Console:
    """A console on `stream` that prints text as it is: no markup, no guessed colours."""
    return Console(file=stream, width=width, markup=False, highlight=False, emoji=False, soft_wrap=False)


def milliseconds(value: float | None) -> str:
    """Three digits: "123", "12.3", "1.23", "0.123" (the unit stands beside it or in the header)."""
    if value is None:
        return NOT_KNOWN
    if value == 0:
        return "0"
    decimals = 3 if value < 1 else 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:.{decimals}f}"


def percent(part: float | None, whole: float | None = 1.0) -> str:
    """A share in percent: "44 %", "0.4 %"."""
    if part is None or not whole:
        return NOT_KNOWN
    share = 100 * part / whole
    return f"{share:.0f} %" if share >= 1 or share == 0 else f"{share:.1g} %"


def size(count: float | None) -> str:
    """Bytes in decimal units: "4.2 MB"."""
    if count is None:
        return NOT_KNOWN
    if count < 1000:
        return f"{count:.0f} B"
    power = min((len(f"{count:.0f}") - 1) // 3, len(_UNITS))
    scaled = count / 1000**power
    return f"{scaled:.{0 if scaled >= 100 else 1}f} {_UNITS[power - 1]}"


def number(value: float | None) -> str:
    """A count or a rate, three digits but at most three decimals: "12", "0.5", "0.004", "<0.001"."""
    if value is None:
        return NOT_KNOWN
    if 0 < value < 0.001:
        return "<0.001"
    return f"{value:,.0f}" if value >= 999.5 else f"{round(value, 3):.3g}"


def how_told(how: str) -> str:
    """How steps were told apart, and what to beware of where that was guessed."""
    return f"{how}; one may be several iterations" if how == INFERRED else how


def bar(console: Console, share: float, width: int) -> str:
    """A bar of `share` (0..1) of `width` characters."""
    block = "█" if console.encoding.lower().startswith("utf") else "#"
    return block * (max(1, round(share * width)) if share > 0 else 0)


def plain_table(left: Sequence[str], right: Sequence[str]) -> Table:
    """A table with a rule under its head: text columns first, then right-aligned numbers."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for header in left:
        table.add_column(header, no_wrap=True, overflow="ellipsis", max_width=14)
    for header in right:
        table.add_column(header, justify="right", no_wrap=True)
    return table


def pairs(rows: Iterable[tuple[str, str]]) -> Table:
    """Names and what they stand for, in two columns without a head."""
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name, value)
    return table


def print_tight(console: Console, body: RenderableType, width: int) -> None:
    """Print without the blanks that tables put behind their lines."""
    for line in console.render_lines(body, console.options.update(width=width), pad=False):
        while line and not line[-1].text.strip():
            line.pop()
        if line:
            line[-1] = Segment(line[-1].text.rstrip(), line[-1].style)
        console.print(Segments([*line, Segment.line()]), end="")
