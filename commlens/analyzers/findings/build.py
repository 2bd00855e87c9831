"""Pieces that every finding has."""

from __future__ import annotations

from commlens.analyzers.findings.context import Context
from commlens.analyzers.report import Action

_HIGH = 0.1  # of a step


def severity(context: Context, ms: float) -> str:
    """How bad so much time a step is."""
    return "high" if context.step_ms and ms >= _HIGH * context.step_ms else "medium"


def advice(text: str, *, change: str = "", risk: str = "none: looking only", verify: str) -> Action:
    """What to do, without a price: that takes the simulator."""
    return Action(text=text, change=change, fix=None, risk=risk, min_torch=None, predicted=None, verify=verify)
