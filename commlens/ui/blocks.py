"""What `commlens.render` made for a terminal, as a small neutral tree: pages are built of the same words and cells.

`blocks(renderable)` knows what render uses: str, Text, Table (with and without head), Group, Padding and Constrain.
Anything else is a TypeError: a part of the report would be missing.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final

from rich.console import Console, Group, RenderableType
from rich.constrain import Constrain
from rich.padding import Padding
from rich.table import Column
from rich.table import Table as RichTable
from rich.text import Text

from commlens.render.words import open_console

PLAIN, STRONG, QUIET, ALARM, BAR = EMPHASES = ("", "strong", "quiet", "alarm", "bar")
WIDTH: Final = 400  # columns: no table leaves one out
_BLOCK = {"█"}


@dataclass(frozen=True)
class Words:
    """A run of text with one emphasis of `EMPHASES`; BAR is a bar drawn of characters."""

    text: str
    emphasis: str = PLAIN


@dataclass(frozen=True)
class Line:
    """A paragraph.

    Attributes:
        words: its runs.
        indent: columns that it stands to the right.
    """

    words: tuple[Words, ...]
    indent: int = 0

    @property
    def text(self) -> str:
        """Without emphasis."""
        return "".join(each.text for each in self.words)


@dataclass(frozen=True)
class Table:
    """Rows of cells.

    Attributes:
        head: of each column, with line breaks; () where there is none.
        rows: as many cells each as there are columns.
        numbers: which columns are numbers, and stand on the right.
        named: the first cell of a row is its name.
        indent: columns that it stands to the right.
    """

    head: tuple[str, ...]
    rows: tuple[tuple[Words, ...], ...]
    numbers: tuple[bool, ...]
    named: bool
    indent: int = 0


Block = Line | Table


def blocks(renderable: RenderableType) -> tuple[Block, ...]:
    """The blocks of what render made, in order; nothing for empty lines.

    Raises:
        TypeError: it is made of something that is not known here.
    """
    return tuple(_blocks(renderable))


def wide_console() -> Console:
    """For `sections`: so wide that no column is left out."""
    return open_console(io.StringIO(), width=WIDTH)


def _blocks(renderable: object) -> Iterator[Block]:
    if isinstance(renderable, str):
        if renderable.strip():
            yield Line((Words(renderable),))
    elif isinstance(renderable, Text):
        yield Line(tuple(_runs(renderable)))
    elif isinstance(renderable, RichTable):
        yield _table(renderable)
    elif isinstance(renderable, Group):
        for each in renderable.renderables:
            yield from _blocks(each)
    elif isinstance(renderable, Padding):
        for block in _blocks(renderable.renderable):
            yield replace(block, indent=block.indent + renderable.left)
    elif isinstance(renderable, Constrain):
        yield from _blocks(renderable.renderable)
    else:
        raise TypeError(f"no block is made of {type(renderable).__name__}")


def _runs(text: Text) -> Iterator[Words]:
    """Pieces between the edges of spans, each with the styles that cover it."""
    edges = sorted({0, len(text), *(edge for span in text.spans for edge in (span.start, span.end))})
    for start, end in pairwise(edges):
        styles = [text.style, *(span.style for span in text.spans if span.start <= start and end <= span.end)]
        yield Words(text.plain[start:end], _emphasis(*styles))


def _table(table: RichTable) -> Table:
    columns = table.columns
    head = tuple(_plain(column.header) for column in columns) if table.show_header else ()
    cells = [list(column.cells) for column in columns]
    rows = tuple(
        tuple(_cell(own[place], column, row.style) for column, own in zip(columns, cells, strict=True))
        for place, row in enumerate(table.rows)
    )
    numbers = tuple(column.justify == "right" for column in columns)
    return Table(head, rows, numbers, named=bool(head) or (bool(numbers) and not numbers[0]))


def _cell(cell: RenderableType, column: Column, row: object) -> Words:
    text = _plain(cell)
    if text and set(text) <= _BLOCK:
        return Words(text, BAR)
    return Words(text, _emphasis(column.style, row or "", cell.style if isinstance(cell, Text) else ""))


def _plain(cell: RenderableType) -> str:
    if isinstance(cell, str | Text):
        return str(cell)
    raise TypeError(f"no cell is made of {type(cell).__name__}")


def _emphasis(*styles: object) -> str:
    """The strongest of rich's styles, as far as pages tell them apart."""
    words = {word for style in styles for word in str(style).split()}
    return ALARM if "red" in words else STRONG if "bold" in words else QUIET if "dim" in words else PLAIN
