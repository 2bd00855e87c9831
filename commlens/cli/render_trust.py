"""What a report rests on, and what it does not answer."""

from __future__ import annotations

from rich.table import Table

from commlens.analyzers import Abstention, Report
from commlens.cli.render import counted, number, pairs, size


def evidence_table(report: Report) -> Table:
    """What was seen, and what recording cost."""
    cover, cost = report.coverage, report.overhead
    lines = [
        ("seen", _seen(report)),
        ("clocks", "not aligned: no number here compares times of two ranks"),
        ("own cost", _own_cost(report)),
        ("trace", f"{size(cost.trace_bytes)}, {number(cost.bytes_per_collective)} bytes a collective"),
    ]
    cut = [("cut short", f"rank {each.rank}: {', '.join(each.tables)}") for each in cover.truncated]
    return pairs([*lines, *cut, *(("note", note) for note in cover.notes)])


def _seen(report: Report) -> str:
    cover = report.coverage
    timings = ", ".join(sorted({line.timing for line in report.collectives if line.timing}))
    return (
        f"{counted(cover.collectives_seen, 'collective')} (a part on each rank), {cover.dropped} dropped, "
        f"{cover.ends_unknown} without a known end{f'; ends seen by: {timings}' if timings else ''}"
    )


def _own_cost(report: Report) -> str:
    cost = report.overhead
    if cost.us_per_collective is None:
        return "not measured"
    part = "" if cost.trampoline_known else ", the call into Python not included"
    share = f"; at most {cost.percent_of_step:.2g} % of a step" if cost.percent_of_step is not None else ""
    return f"{cost.us_per_collective:.1f} us a collective{part}{share}"


def abstentions_table(abstentions: tuple[Abstention, ...]) -> Table | None:
    """Open questions, those with the same reason on one line."""
    if not abstentions:
        return None
    reasons: dict[str, list[str]] = {}
    for each in abstentions:
        reasons.setdefault(each.reason, []).append(each.analysis)
    return pairs((", ".join(names), reason) for reason, names in reasons.items())
