"""Findings as cards: what it is, what it costs, what says so, what to do; the same words as the text report's."""

from __future__ import annotations

from commlens.analyzers import Finding, Report
from commlens.render.findings import TOP_ACTIONS, TOP_EVIDENCE, TOP_FINDINGS, finding_parts
from commlens.ui.blocks import Block, Table, blocks
from commlens.ui.markup import escaped, markup

SEVERITIES = ("critical", "high", "medium", "low")


def cards(report: Report) -> str:
    """The costliest findings, one card each; nothing where there are none."""
    return "\n".join(_card(report, each, place) for place, each in enumerate(report.findings[:TOP_FINDINGS], start=1))


def card_parts(
    report: Report, finding: Finding, mark: str, evidence: int = TOP_EVIDENCE, actions: int = TOP_ACTIONS
) -> tuple[Block, ...]:
    """What stands under a finding's title: its cost, so many lines of evidence, so many actions."""
    _, *rest = finding_parts(report, finding, mark, evidence, actions)
    return tuple(block for each in rest for block in blocks(each))


def _card(report: Report, finding: Finding, place: int) -> str:
    cost, evidence, advice = _three(card_parts(report, finding, str(place)))
    severity = finding.severity if finding.severity in SEVERITIES else "low"
    badge = f'<span class="badge">severity {severity}</span>'
    return (
        f'<article class="card {severity}" id="finding-{place}">'
        f'<h3><span class="mark">{place}</span> {escaped(finding.title)} {badge}</h3>'
        f'<div class="cost">{cost}</div><div class="evidence">{evidence}</div><div class="advice">{advice}</div>'
        "</article>"
    )


def _three(parts: tuple[Block, ...]) -> tuple[str, str, str]:
    """Lines, then the table of evidence, then that of advice."""
    lines = [part for part in parts if not isinstance(part, Table)]
    tables = [part for part in parts if isinstance(part, Table)]
    return markup(lines), markup(tables[:1]), markup(tables[1:])
