"""What `commlens report --by` and `--ranks` print: every host, group or band; or the ranks that were asked for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from rich.console import Console, RenderableType

from commlens.analyzers import Report
from commlens.analyzers.at_scale.chosen import chosen
from commlens.analyzers.at_scale.groups import members
from commlens.analyzers.at_scale.rank_sets import BY, GROUP, HOST, Among, Ranked
from commlens.render.at_scale.collectives import group_lines_table
from commlens.render.at_scale.ranks import sets_section
from commlens.render.columns import note
from commlens.render.ranks import per_step, rank_table
from commlens.render.words import counted

MOST_LINES: Final = 40
_BANDS: Final = "Ranks in ten bands, those that stand still longest first"
_NOTHING: Final = "nothing is known of their time: see what the report does not answer"


def drilled(
    report: Report, console: Console, text: str | None, way: str | None
) -> Iterator[tuple[str, RenderableType]]:
    """Titles and tables.

    Args:
        report: of the run.
        console: tables fit it.
        text: which ranks, as in `chosen`; None for all.
        way: one of `WAYS`; None for a line each.

    Raises:
        UsageError: `text` names ranks that were not recorded.
    """
    ranks = None if text is None else chosen(report, text)
    if way is not None:
        yield _by(report, console, None if ranks is None else {budget.rank for budget, _ in ranks}, way)
    elif ranks is not None:
        yield (
            f"{counted(len(ranks), 'rank')} ({per_step(report)})",
            rank_table(report, ranks, console) or note(_NOTHING),
        )
        yield from _groups(report, console, ranks)


def _by(report: Report, console: Console, among: Among, way: str) -> tuple[str, RenderableType]:
    sets = BY[way](report, among)
    what = {HOST: counted(len(sets), "host"), GROUP: counted(len(sets), "process group")}.get(way, _BANDS)
    return f"{what} ({per_step(report)})", sets_section(sets, way, console)


def _groups(report: Report, console: Console, ranks: tuple[Ranked, ...]) -> Iterator[tuple[str, RenderableType]]:
    """Collectives of the process groups that these ranks are in, first of those that they are most of."""
    asked = {budget.rank for budget, _ in ranks}
    own = {group: (-len(both) / len(of), len(of)) for group, of in members(report).items() if (both := asked & set(of))}
    lines = sorted((line for line in report.collectives if line.group in own), key=lambda line: own[line.group])
    if not lines:
        return
    few = f": {MOST_LINES} of {len(lines):,}, of the groups that they are most of" if len(lines) > MOST_LINES else ""
    yield f"Collectives of their {counted(len(own), 'group')}{few}", group_lines_table(lines[:MOST_LINES], console)
