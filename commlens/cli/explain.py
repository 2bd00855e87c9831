"""`commlens report --explain ID`: all there is to say of one finding, or of one technique."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from itertools import chain

from commlens.analyzers import Report
from commlens.analyzers.report import Considered
from commlens.errors import UsageError


def show_explanation(report: Report, id: str) -> None:
    """Print the page of a finding or a technique.

    Raises:
        UsageError: The report has neither.
    """
    from rich.padding import Padding
    from rich.text import Text

    from commlens.render.columns import INDENT, PROSE
    from commlens.render.findings import finding_parts
    from commlens.render.words import open_console, pairs, print_tight

    findings = [each for each in report.findings if each.id == id]
    techniques = [each for each in report.considered if id in (each.id, each.row)]
    if not findings and not techniques:
        raise UsageError(f"no finding and no technique is called {id!r}; this report has {_names(report)}")
    console = open_console(sys.stdout)
    width = min(console.width, PROSE)
    for finding in findings:
        for part in finding_parts(report, finding, "", len(finding.evidence), len(finding.actions)):
            print_tight(console, part, width)
    for technique in techniques:
        print_tight(console, Text(technique.technique, style="bold"), width)
        print_tight(console, Padding(pairs(_page(technique)), (0, 0, 0, INDENT)), width)


def _names(report: Report) -> str:
    """The findings; the techniques are too many for a line."""
    own = ", ".join(dict.fromkeys(each.id for each in report.findings)) or "no findings"
    return f"{own}; techniques: commlens whatif RUN --all"


def _page(technique: Considered) -> Iterator[tuple[str, str]]:
    """Label and text, without what is not known."""
    return ((label, text) for label, text in chain(_judged(technique), _described(technique)) if text)


def _judged(technique: Considered) -> Iterable[tuple[str, str]]:
    from commlens.render.gain import interval, signed

    yield technique.verdict, technique.reason
    if technique.predicted is not None:
        gain = f"{signed(technique.predicted.gain_ms)} ms a step, 90 % interval {interval(technique.predicted)}"
        yield "gain", f"{gain}, with {', '.join(technique.set)}"


def _described(technique: Considered) -> Iterable[tuple[str, str]]:
    yield "change", technique.change
    yield "try", f"commlens verify RUN --fix {technique.fix} -- torchrun ..." if technique.fix else ""
    yield "price", technique.price
    yield "not for", technique.not_for
    yield "risk", technique.risk
    yield "layer", f"{technique.layer} (row {technique.row} of the catalogue)"
