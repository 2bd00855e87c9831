"""The page of `commlens compare`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import IO, TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from commlens.analyzers.comparison.difference import LONGER, NOT_TOLD, SHORTER
from commlens.analyzers.comparison.untold import why_untold
from commlens.render.columns import PROSE, Column, clipped, fitted
from commlens.render.gain import signed
from commlens.render.gates import plain
from commlens.render.words import (
    NOT_KNOWN,
    counted,
    milliseconds,
    number,
    open_console,
    pairs,
    percent,
    print_tight,
    size,
)

if TYPE_CHECKING:
    from commlens.analyzers.comparison import Comparison
    from commlens.analyzers.comparison.compared import RankPair, Seen
    from commlens.analyzers.comparison.difference import Difference
    from commlens.analyzers.report import Finding

_MOST_ROWS = 10
_MOST_CHANGED = 12
_NARROWEST, _LEAD = 12, 8  # characters of a setting's value; of them what is alike
_MARKS = {LONGER: " +", SHORTER: " -"}


def print_comparison(result: Comparison, stream: IO[str]) -> None:
    """What is compared, whether it may be, what else differs, and what of the time changed."""
    console = open_console(stream)
    width = min(console.width, PROSE)
    print_tight(console, pairs((("before", _seen(result.before)), ("after", _seen(result.after)))), width)
    for label, lines in (("Not comparable", result.refusals), ("Mind", result.warnings)):
        for line in lines:
            print_tight(console, Text(f"{label}: {plain(line)}."), width)
    console.print()
    print_tight(console, Text(comparison_headline(result), style="bold"), width)
    for title, table in comparison_sections(result, console):
        if table.row_count:
            console.print()
            print_tight(console, Text(title, style="bold cyan"), width)
            print_tight(console, table, console.width)
    for said in _findings(result):
        console.print()
        print_tight(console, Text(said), width)
    console.print()
    print_tight(console, Text(_small_print(result), style="dim"), width)


def comparison_headline(result: Comparison) -> str:
    """What became of the step, and which part of it changed most."""
    step = result.step
    if step.change_ms is None:
        return "How steps changed cannot be told: their time is not known in both runs."
    sides = f"from {milliseconds(step.before_ms)} to {milliseconds(step.after_ms)} ms"
    if step.verdict is None:
        return (
            f"Steps went {sides} ({_share(step)}); whether that is more than noise cannot be told:"
            f" {why_untold(result)}."
        )
    interval = f"{percent(result.level)} interval {_interval(step)} ms"
    if step.verdict == NOT_TOLD:
        return f"No difference between steps can be told: {sides} ({_share(step)}), {interval}."
    return f"Steps became {step.verdict}: {sides} ({_share(step)}), {interval}.{_most(result)}"


def _most(result: Comparison) -> str:
    """The part that explains most of the change, of those that surely changed with it."""
    names = ("compute_ms", "exposed_transfer_ms", "exposed_wait_ms", "exposed_unsplit_ms", "other_ms")
    parts = {name: result.parts[name] for name in names if result.parts[name].verdict == result.step.verdict}
    if not parts:
        return ""
    name = max(parts, key=lambda each: abs(parts[each].change_ms or 0))
    return f" Most of it: {_part(name)}, {_change(parts[name])} ms."


def comparison_sections(result: Comparison, console: Console) -> Iterator[tuple[str, Table]]:
    """Titles and tables that fit the console; some are empty."""
    yield "What else differs between the jobs", _changed(result, console)
    yield "Where a step goes (ms)", _budget(result, console)
    if len(result.groups) > 1:
        names = [[clipped(console, plain(each.group), 20) for each in result.groups[:_MOST_ROWS]]]
        yield (
            f"Exposed per step, by group{_of(len(result.groups))}",
            _table(
                console, [Column("group", names[0], right=False)], [each.exposed for each in result.groups[:_MOST_ROWS]]
            ),
        )
    yield f"Exposed per step, by collective{_of(len(result.collectives))}", _collectives(result, console)
    yield f"By rank (ms per step; + longer, - shorter){_of(len(result.ranks))}", _ranks(result, console)


def _of(count: int) -> str:
    return "" if count <= _MOST_ROWS else f" (the {_MOST_ROWS} of {count} that changed most)"


def _seen(seen: Seen) -> str:
    ranks = f"{seen.ranks} of {counted(seen.world_size, 'rank')}"
    matched = "" if seen.matched is None else f", {percent(seen.matched)} of collectives matched"
    return f"{plain(seen.path)} ({ranks}, {counted(seen.steps, 'step')}{matched})"


def _changed(result: Comparison, console: Console) -> Table:
    shown = result.changed[:_MOST_CHANGED]
    names = [clipped(console, plain(each.name), 30) for each in shown]
    room = max(_NARROWEST, (min(console.width, PROSE) - max(map(len, names), default=0) - 4) // 2)
    sides = [_unlike(console, _value(each.before), _value(each.after), room) for each in shown]
    heads = ("", "before", "after")
    columns = [names, *([side[place] for side in sides] for place in (0, 1))]
    table = fitted(console, [Column(head, cells, right=False) for head, cells in zip(heads, columns, strict=True)])
    if len(result.changed) > _MOST_CHANGED:
        table.add_row(f"{len(result.changed) - _MOST_CHANGED} more", "", "(--format json)")
    return table


def _value(text: str | None) -> str:
    return "not known" if text is None else plain(text)


def _unlike(console: Console, before: str, after: str, room: int) -> tuple[str, str]:
    """Both values in so much room, from shortly before where they differ."""
    if max(len(before), len(after)) > room:
        alike = max(0, _alike(before, after) - _LEAD)
        if alike:
            before, after = (clipped(console, each, len(each) - alike + 1, front=True) for each in (before, after))
    return clipped(console, before, room), clipped(console, after, room)


def _alike(one: str, other: str) -> int:
    """Characters that both begin with."""
    shorter = min(len(one), len(other))
    return next((place for place in range(shorter) if one[place] != other[place]), shorter)


def _budget(result: Comparison, console: Console) -> Table:
    shown = [(name, pair) for name, pair in (("step_ms", result.step), *result.parts.items()) if _any(pair)]
    return _table(console, [Column("", [_part(name) for name, _ in shown], right=False)], [pair for _, pair in shown])


def _part(name: str) -> str:
    words = name.removesuffix("_ms").replace("_", " ")
    return {"exposed": "exposed, in all", "exposed unsplit": "exposed, not split"}.get(words, words)


def _any(pair: Difference) -> bool:
    """Something is known of it, and it is not nothing on both sides."""
    return bool(pair.before_ms or pair.after_ms)


def _collectives(result: Comparison, console: Console) -> Table:
    shown = [each for each in result.collectives if _any(each.exposed) or _any(each.transfer)][:_MOST_ROWS]
    counts = [" > ".join(dict.fromkeys(number(count) for count in each.count_per_step)) for each in shown]
    names = [
        Column("group", [clipped(console, plain(each.group), 20) for each in shown], right=False),
        Column("operation", [clipped(console, each.op, 20) for each in shown], right=False),
        Column("size", [size(each.bytes) for each in shown]),
        Column("a step", counts, drop=3),
    ]
    return _table(console, names, [each.exposed for each in shown])


def _table(console: Console, names: Sequence[Column], shown: Sequence[Difference]) -> Table:
    """Names, both sides, the change with its interval, and whether it is one."""
    columns = [
        *names,
        Column("before", [milliseconds(pair.before_ms) for pair in shown]),
        Column("after", [milliseconds(pair.after_ms) for pair in shown]),
        Column("change", [_change(pair) for pair in shown]),
        Column("", [_share(pair) for pair in shown], drop=1),
        Column("interval", [_interval(pair) for pair in shown], drop=2),
        Column("told", [_verdict(pair) for pair in shown], right=False),
    ]
    return fitted(console, columns)


def _verdict(pair: Difference) -> str:
    if pair.verdict is None:
        return "" if pair.change_ms is None else "?"
    return "" if pair.verdict == NOT_TOLD else pair.verdict


def _ranks(result: Comparison, console: Console) -> Table:
    """Ranks whose compute, waiting, or what others wait for them, changed most."""

    def moved(each: RankPair) -> float:
        return max(abs(pair.change_ms or 0.0) for pair in (each.compute, each.exposed, each.wait, each.caused_wait))

    shown = sorted(sorted(result.ranks, key=lambda each: -moved(each))[:_MOST_ROWS], key=lambda each: each.rank)
    columns = [Column("rank", [str(each.rank) for each in shown])]
    for name, head, drop in (
        ("compute", "compute", 1),
        ("exposed", "exposed", 2),
        ("wait", "waits", 3),
        ("caused_wait", "causes", 0),
    ):
        own = [getattr(each, name) for each in shown]
        if not any(_any(pair) for pair in own):
            continue
        sides = [f"{milliseconds(pair.before_ms)} > {milliseconds(pair.after_ms)}{_mark(pair)}" for pair in own]
        columns.append(Column(head, sides, drop=drop))
    return fitted(console, columns) if len(columns) > 1 else Table()


def _mark(pair: Difference) -> str:
    """A change that is none by the steps is not marked."""
    return _MARKS.get(pair.verdict or "", "  ")


def _change(pair: Difference) -> str:
    change = pair.change_ms
    return NOT_KNOWN if change is None else f"+{milliseconds(change)}" if change > 0 else signed(change)


def _share(pair: Difference) -> str:
    return NOT_KNOWN if pair.change_percent is None else f"{pair.change_percent:+.1f} %"


def _interval(pair: Difference) -> str:
    if pair.low_ms is None or pair.high_ms is None:
        return NOT_KNOWN
    return f"{_with_sign(pair.low_ms)} .. {_with_sign(pair.high_ms)}"


def _with_sign(ms: float) -> str:
    return f"+{milliseconds(ms)}" if ms > 0 else signed(ms)


def _findings(result: Comparison) -> Iterable[str]:
    yield from (f"New finding: {_told(each)}{_ceiling(each)}" for each in result.appeared)
    yield from (f"No longer found: {_told(each)}{_ceiling(each)}" for each in result.gone)
    for pair in result.stayed:
        costs = (
            f"costs up to {milliseconds(pair.ceiling.before_ms)} ms before, {milliseconds(pair.ceiling.after_ms)} after"
        )
        yield f"Still found: {_told(pair.finding)}: {costs}"


def _ceiling(finding: Finding) -> str:
    return "" if finding.ceiling_ms is None else f": costs up to {milliseconds(finding.ceiling_ms)} ms a step"


def _told(finding: Finding) -> str:
    return f"{plain(finding.title)} ({finding.id})"


def _small_print(result: Comparison) -> str:
    level = percent(result.level)
    base = (
        f"Intervals are from the steps of both runs, {level} for the step and for each table as a whole. What is not"
        " marked longer or shorter may be noise; ? is not known to be more than noise."
    )
    if result.alike_runs:
        return f"{base} What {counted(result.alike_runs + 1, 'run')} of the first job differ by is in them."
    return (
        f"{base} What two runs of an unchanged job differ by is not in them: --noise RUN, more than once, brings it in."
    )


def comparison_notes(result: Comparison) -> list[str]:
    """Findings that came, went or changed, and what the numbers mean."""
    return [*_findings(result), _small_print(result)]
