"""When there are too many ranks for a line each."""

from __future__ import annotations

from typing import Final

from commlens.analyzers.report import Report

MANY: Final = 64  # lines that can be told apart on a screen


def is_many(report: Report) -> bool:
    """Whether tables, figures and pages put together what is alike: above 64 ranks, the one definition of it."""
    return len(report.ranks) > MANY
