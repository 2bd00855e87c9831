"""Tables that fit the terminal: where there is no room, the least important columns are left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.constrain import Constrain
from rich.table import Table
from rich.text import Text

INDENT = 2
PROSE = 100  # longer lines are hard to read
_BETWEEN = 2  # between columns


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Attributes:
        head: its title, of several lines where it has line breaks.
        cells: from the first row on.
        right: numbers stand on the right.
        drop: columns with the highest number are left out first; 0 stays.
    """

    head: str
    cells: Sequence[str]
    right: bool = True
    drop: int = 0

    @property
    def width(self) -> int:
        """Of its longest line."""
        return max(cell_len(line) for text in (self.head, *self.cells) for line in text.split("\n"))

    @property
    def empty(self) -> bool:
        """There is nothing in it."""
        return all(cell in ("", "-") for cell in self.cells)


def fitted(console: Console, columns: Sequence[Column]) -> Table:
    """A table of the columns that have something in them and fit the console, with a rule under its head."""
    kept = [column for column in columns if not (column.drop and column.empty)]
    while _width(kept) > console.width - INDENT and any(column.drop for column in kept):
        kept.remove(max(kept, key=lambda column: column.drop))
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for column in kept:
        table.add_column(column.head, justify="right" if column.right else "left", no_wrap=True, overflow="ellipsis")
    for row in zip(*(column.cells for column in kept), strict=True):
        table.add_row(*row)
    return table


def _width(columns: Sequence[Column]) -> int:
    return sum(column.width for column in columns) + _BETWEEN * (len(columns) - 1)


def note(text: str) -> Constrain:
    """Words under a table, in lines that are not too long to read."""
    return Constrain(Text(text, style="dim"), PROSE - INDENT)


def clipped(console: Console, text: str, most: int, front: bool = False) -> str:
    """`text` in at most `most` characters; `front` cuts its beginning and keeps the end."""
    if cell_len(text) <= most:
        return text
    mark = "…" if console.encoding.lower().startswith("utf") else "~"
    return mark + text[1 - most :] if front else text[: most - 1] + mark
