"""`commlens report --by` and `--ranks`: tables of a run's ranks instead of its report."""

from __future__ import annotations

import enum
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from commlens.analyzers import Report


class By(str, enum.Enum):
    """How ranks are put together."""

    host = "host"
    group = "group"
    quantile = "quantile"


def show_ranks(report: Report, ranks: str | None, by: By | None) -> None:
    """Print the tables.

    Raises:
        UsageError: `ranks` names some that were not recorded.
    """
    from rich.padding import Padding
    from rich.text import Text

    from commlens.render.at_scale.drill import drilled
    from commlens.render.columns import INDENT
    from commlens.render.words import open_console, print_tight

    console = open_console(sys.stdout)
    tables = list(drilled(report, console, ranks, None if by is None else by.value))
    for place, (title, body) in enumerate(tables):
        if place:
            console.print()
        print_tight(console, Text(title, style="bold cyan"), console.width)
        print_tight(console, Padding(body, (0, 0, 0, INDENT), expand=False), console.width)
