"""How far each rank got, where a job may have stood still: last issued and last ended, side by side."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from rich.console import Console
from rich.table import Table

from commlens.analyzers import Report
from commlens.analyzers.abstentions import name_ranks
from commlens.analyzers.across.progress import Progress, RankProgress
from commlens.analyzers.at_scale.many import MANY
from commlens.render.columns import clipped
from commlens.render.words import counted, pairs

TOP_GROUPS = 4
BROKEN = ("hang", "desync", "exception")  # findings of a job that did not end
_GROUP = 24
_PLACES = MANY  # of a group in which ranks got differently far: as many as a screen has lines


def progress_section(report: Report, console: Console) -> Table | None:
    """The groups in which a rank is behind, and those that hang; None for a job that did not stand."""
    broken = any(finding.id in BROKEN for finding in report.findings)
    if not broken and not any(each.analysis == "hang" for each in report.abstentions):
        return None
    named = {finding.group for finding in report.findings if finding.id in BROKEN}
    shown = [each for each in report.progress if each.behind or (each.group in named and not each.point_to_point)]
    rows = [row for each in shown[:TOP_GROUPS] for row in _rows(each, console)]
    if len(shown) > TOP_GROUPS:
        rows.append(("", f"{len(shown) - TOP_GROUPS} more groups with --format json"))
    return pairs(rows) if rows else None


def _rows(progress: Progress, console: Console) -> Iterator[tuple[str, str]]:
    """One row for all ranks that got equally far; of very many places the first, where ranks are furthest behind."""
    together: defaultdict[str, list[RankProgress]] = defaultdict(list)
    for each in progress.per_rank:
        together[_place(each)].append(each)
    title = clipped(console, _title(progress), _GROUP)
    places = list(together.items())
    if len(places) > _PLACES:
        places.sort(key=lambda place: _reached(place[1][0]))
    for place, ranks in places[:_PLACES]:
        yield title, f"{name_ranks(each.rank for each in ranks)}: {place}"
        title = ""
    if len(places) > _PLACES:
        others = sum(len(ranks) for _, ranks in places[_PLACES:])
        yield title, f"{counted(others, 'rank')} further on, at {counted(len(places) - _PLACES, 'other place')}"


def _reached(each: RankProgress) -> int:
    """The last it issued; those that issued nothing come first, those of which nothing is known before them."""
    return -2 if not each.recorded else -1 if each.last_issued is None else each.last_issued


def _title(progress: Progress) -> str:
    if progress.point_to_point:
        return "messages {} to {}".format(*progress.members)
    described = progress.desc not in ("", "undefined")
    return f"group {progress.group}" + (f" ({progress.desc})" if described else "")


def _place(each: RankProgress) -> str:
    if not each.recorded:
        return "not recorded"
    if each.last_issued is None:
        return "issued nothing"
    ended = "none" if each.last_completed is None else str(each.last_completed)
    return f"issued {each.last_issued} ({each.op or 'not known'}), ended {ended}"
