"""What a report rests on, and what it does not answer."""

from __future__ import annotations

from rich.table import Table

from commlens.analyzers import Abstention, Report
from commlens.analyzers.abstentions import name_ranks
from commlens.analyzers.at_scale.many import MANY
from commlens.analyzers.coverage import Clock
from commlens.analyzers.findings.exceptions import raised_words
from commlens.analyzers.numerals import plain
from commlens.render.nccl import device_words
from commlens.render.windows import window_words
from commlens.render.words import counted, milliseconds, number, pairs, percent, size

_NAMES = 20
_DEAR = 0.5  # % of a step that recording costs at most


def evidence_table(report: Report) -> Table:
    """What was seen, and what recording cost."""
    cover = report.coverage
    lines = [
        ("seen", _seen(report)),
        ("matched", matched_words(report)),
        *([("clocks", clock_words(report))] if len(report.run.ranks_present) > 1 else []),
        *([] if report.run.imported else [("own cost", own_cost(report)), ("trace", trace_words(report))]),
        *([("kernels", _kernels(report))] if report.device_lanes else []),
        *device_words(report),
        *window_words(cover.windows),
        *([("endings", raised_words(cover.raised))] if cover.raised else []),
    ]
    cut = [("cut short", f"{who}: {tables}") for who, tables in cut_short(report)]
    return pairs([*lines, *cut, *(("note", note) for note in cover.notes)])


def cut_short(report: Report) -> list[tuple[str, str]]:
    """Ranks, and their tables that were cut short; of many ranks those with the same tables together."""
    truncated = report.coverage.truncated
    if len(truncated) <= MANY:
        return [(f"rank {each.rank}", ", ".join(each.tables)) for each in truncated]
    together: dict[str, list[int]] = {}
    for each in truncated:
        together.setdefault(", ".join(each.tables), []).append(each.rank)
    return [(name_ranks(ranks), tables) for tables, ranks in together.items()]


def _seen(report: Report) -> str:
    cover = report.coverage
    timings = ", ".join(sorted({line.timing for line in report.collectives if line.timing}))
    return (
        f"{counted(cover.collectives_seen, 'collective')} (a part on each rank), {cover.dropped} dropped, "
        f"{cover.ends_unknown} without a known end{f'; ends seen by: {timings}' if timings else ''}"
    )


def matched_words(report: Report) -> str:
    """How rows of different ranks were joined."""
    cover = report.coverage
    if cover.match_key is None:
        return "nothing to match"
    apart = f", {cover.collectives_unmatched} without a counterpart" if cover.collectives_unmatched else ""
    doubt = cover.match_confidence
    sure = f"; {percent(doubt)} of the matches agree with one another" if doubt is not None and doubt < 1 else ""
    return f"{cover.collectives_matched:,} of {cover.collectives_seen:,}{apart}, by {cover.match_key}{sure}"


def clock_words(report: Report) -> str:
    """How times of different ranks compare, or why they do not."""
    return compared_clocks(report.coverage.clock)


def compared_clocks(clock: Clock) -> str:
    """The same, of the clocks alone."""
    if clock.refusal is not None:
        return f"not compared: {clock.refusal}"
    if not clock.uncertainty_us:
        return clock.method
    return f"{clock.method}; times of two ranks can be wrong against each other by {number(clock.uncertainty_us)} us"


def _kernels(report: Report) -> str:
    """What ran on devices, and what is not known of it."""
    lanes = report.device_lanes
    early = sum(lane.launched_before for lane in lanes)
    unknown = sum(lane.unclassified for lane in lanes)
    parts = [f"{sum(lane.kernels for lane in lanes):,} kernels and copies"]
    if early:
        parts.append(f"{early:,} of them launched before the trace begins")
    if unknown:
        ms = sum(lane.unclassified_ms for lane in lanes)
        parts.append(f"{unknown:,} named like communication, of no known kind ({milliseconds(ms)} ms alone)")
    return ", ".join(parts)


def trace_words(report: Report) -> str:
    """Size on disk."""
    cost = report.overhead
    each = cost.bytes_per_collective
    return size(cost.trace_bytes) + ("" if each is None else f", {number(each)} bytes a collective")


def own_cost(report: Report) -> str:
    """What recording cost the job."""
    cost = report.overhead
    if cost.us_per_collective is None:
        return "not measured"
    part = "" if cost.trampoline_known else ", the call into Python not included"
    share = f"; at most {plain(cost.percent_of_step, 2)} % of a step" if cost.percent_of_step is not None else ""
    windows = f"; the job stood still {milliseconds(cost.windows_ms)} ms for deep windows" if cost.windows_ms else ""
    how = "native" if report.run.sources == ("native",) else "Python"
    better = ", which commlens build makes native" if how == "Python" and (cost.percent_of_step or 0) >= _DEAR else ""
    return f"{cost.us_per_collective:.1f} us a collective in {how} hooks{better}{part}{share}{windows}"


def abstentions_table(abstentions: tuple[Abstention, ...]) -> Table | None:
    """Open questions, those with the same reason on one line."""
    if not abstentions:
        return None
    reasons: dict[str, list[str]] = {}
    for each in abstentions:
        reasons.setdefault(each.reason, []).append(each.analysis)
    table = pairs((", ".join(dict.fromkeys(names)), reason) for reason, names in reasons.items())
    table.columns[0].max_width = _NAMES
    return table
