"""Predicted gains as text."""

from __future__ import annotations

from commlens.analyzers.report import Predicted
from commlens.render.words import NOT_KNOWN, milliseconds, percent


def interval(predicted: Predicted) -> str:
    """ "3.1 .. 9.8", ms."""
    return f"{signed(predicted.low_ms)} .. {signed(predicted.high_ms)}"


def signed(ms: float) -> str:
    """Milliseconds, a loss with its sign."""
    return f"-{milliseconds(-ms)}" if ms < 0 else milliseconds(ms)


def share_of(value: float, whole: float | None) -> str:
    """Of the step, a loss with its sign."""
    if whole is None:
        return NOT_KNOWN
    return f"-{percent(-value, whole)}" if value < 0 else percent(value, whole)
