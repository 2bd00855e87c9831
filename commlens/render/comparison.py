"""The page of `commlens compare`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import IO, TYPE_CHECKING

from rich.table import Table

from commlens.render.words import NOT_KNOWN, milliseconds, number, open_console, plain_table, size

if TYPE_CHECKING:
    from commlens.analyzers.comparison import Comparison, Pair
    from commlens.analyzers.report import Finding

_MOST_ROWS = 10
_COLUMNS = ("before ms", "after ms", "change ms", "change")


def print_comparison(result: Comparison, stream: IO[str]) -> None:
    """Step, time budget, collectives, ranks and findings."""
    console = open_console(stream)
    console.print(f"before  {result.before}\nafter   {result.after}", soft_wrap=True)
    for note in result.notes:
        console.print(f"Not the same job: {note}.")
    console.print()
    console.print(_budget(result))
    for title, table in (("Exposed per step, by collective", _collectives(result)), ("By rank", _ranks(result))):
        if table.row_count:
            console.print(f"\n{title}")
            console.print(table)
    for word, findings in (("New finding", result.appeared), ("No longer found", result.gone)):
        for finding in findings:
            console.print(f"\n{word}: {_told(finding)}")


def _budget(result: Comparison) -> Table:
    table = plain_table([""], _COLUMNS)
    for name, pair in (("step_ms", result.step), *result.parts.items()):
        if pair.before_ms is not None or pair.after_ms is not None:
            table.add_row(name.removesuffix("_ms").replace("_", " "), *_cells(pair))
    return _wide(table)


def _collectives(result: Comparison) -> Table:
    table = plain_table(["group", "operation"], ["size", "a step", *_COLUMNS[:3]])
    for each in result.collectives[:_MOST_ROWS]:
        counts = " > ".join(number(count) for count in each.count_per_step)
        table.add_row(each.group, each.op, size(each.bytes), counts, *_cells(each.exposed)[:3])
    return _wide(table, (0, 1))


def _ranks(result: Comparison) -> Table:
    """Ranks whose waiting, or what others wait for them, changed most."""
    table = plain_table(["rank"], [f"{what} {name}" for what in ("waits", "causes") for name in _COLUMNS[:2]])
    changed = sorted(result.ranks, key=lambda each: -max(_moved(each.wait), _moved(each.caused_wait)))
    for each in sorted(changed[:_MOST_ROWS], key=lambda each: each.rank):
        table.add_row(str(each.rank), *_cells(each.wait)[:2], *_cells(each.caused_wait)[:2])
    return _wide(table)


def _moved(pair: Pair) -> float:
    return abs(pair.change_ms or 0.0)


def _cells(pair: Pair) -> tuple[str, str, str, str]:
    change, share = pair.change_ms, pair.change_percent
    sign = "" if not change else "+" if change > 0 else "-"
    moved = NOT_KNOWN if change is None else f"{sign}{milliseconds(abs(change))}"
    percent = NOT_KNOWN if share is None else f"{share:+.1f} %"
    return milliseconds(pair.before_ms), milliseconds(pair.after_ms), moved, percent


def _told(finding: Finding) -> str:
    return f"{finding.title} ({finding.id})"


def _wide(table: Table, columns: Iterable[int] = (0,)) -> Table:
    """Names in full."""
    for place in columns:
        table.columns[place].max_width = 20
    return table
