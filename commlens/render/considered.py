"""Every technique of the catalogue, judged for one job, as a page of text."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence

from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.text import Text

from commlens.analyzers import Report
from commlens.analyzers.report import Considered
from commlens.render.columns import INDENT, PROSE, Column, clipped, fitted
from commlens.render.gain import interval, share_of, signed
from commlens.render.words import NOT_KNOWN, milliseconds, pairs, print_tight
from commlens.trace.change_kinds import RISKS

_WIDEST = 40  # characters of a technique
_TITLES = {
    "advised": "Advised, what loses nothing first",
    "rejected": "Rejected, and the number that says so",
    "not known": "Not known, and why",
    "explained": "Nothing to try today",
}


def considered_title(report: Report) -> str:
    """The section's title."""
    return f"Considered and rejected (all {len(report.considered)} techniques: commlens whatif RUN --all)"


def considered_section(report: Report) -> RenderableType | None:
    """What was simulated and gains too little, with the number; nothing where nothing was."""
    tried = [each for each in report.considered if each.verdict == "rejected" and each.predicted is not None]
    if not tried:
        return None
    return pairs((each.id, f"{', '.join(each.set)}: {each.reason}") for each in tried)


def print_considered(report: Report, console: Console) -> None:
    """Print what is advised with its price, then why the rest is not."""
    step = report.time_budget.step_ms
    lead = f"A step takes {milliseconds(step)} ms" if step else "No steps were seen: nothing can be priced"
    console.print(Text(f"{lead}; {len(report.considered)} techniques considered", style="bold"), soft_wrap=True)
    for verdict, title in _TITLES.items():
        those = [each for each in report.considered if each.verdict == verdict]
        if not those:
            continue
        console.print()
        console.print(Text(title, style="bold cyan"))
        if verdict == "advised":
            _print_advised(advised(those), step, console)
        else:
            _print_reasons(those, console)
    if not any(each.verdict == "advised" for each in report.considered):
        console.print()
        console.print(Text("Nothing is advised.", style="bold"))


def advised(those: Iterable[Considered]) -> list[Considered]:
    """By what they risk, then by what they gain."""
    return sorted(those, key=lambda each: (RISKS.index(each.risk), -_gain(each)))


def _gain(each: Considered) -> float:
    return each.predicted.gain_ms if each.predicted is not None else each.ceiling_ms or 0.0


def _print_advised(those: Sequence[Considered], step_ms: float | None, console: Console) -> None:
    table = fitted(
        console,
        [
            Column("technique", [clipped(console, each.technique, _WIDEST) for each in those], right=False),
            Column("gain ms", [_gain_text(each) for each in those]),
            Column("90 % interval", [interval(each.predicted) if each.predicted else NOT_KNOWN for each in those]),
            Column("of the step", [share_of(_gain(each), step_ms) for each in those], drop=2),
            Column("risk", [each.risk for each in those], right=False),
        ],
    )
    print_tight(console, Padding(table, (0, 0, 0, INDENT), expand=False), console.width)
    _wrapped((f"{each.id}: {line}" for each in those for line in _details(each)), console)


def _gain_text(each: Considered) -> str:
    if each.predicted is not None:
        return signed(each.predicted.gain_ms)
    return f"up to {milliseconds(each.ceiling_ms)}" if each.ceiling_ms is not None else NOT_KNOWN


def _details(each: Considered) -> Iterator[str]:
    """Why, and how."""
    yield each.reason
    if each.fix is not None:
        yield f"to try it: --fix {each.fix}"
    if each.change:
        yield f"change: {each.change}"


def _print_reasons(those: Sequence[Considered], console: Console) -> None:
    """Techniques with the same reason on one line."""
    reasons: dict[str, list[str]] = {}
    for each in those:
        reasons.setdefault(each.reason, []).append(each.id)
    _wrapped((f"{', '.join(ids)}: {reason}" for reason, ids in reasons.items()), console)


def _wrapped(lines: Iterable[str], console: Console) -> None:
    width = min(console.width, PROSE)
    for line in lines:
        text = textwrap.fill(line, width, initial_indent=" " * INDENT, subsequent_indent=" " * 2 * INDENT)
        console.print(Text(text, style="dim"), soft_wrap=True)
