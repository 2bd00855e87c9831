"""A job with a planted fault, and the answer that is expected of commlens."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lab.plan import Plan

EXITS, HANGS = "exits", "hangs"  # how a job ends


@dataclass(frozen=True)
class Expected:
    """The right answer.

    Attributes:
        ids: any of these findings, none for a healthy job.
        ranks: exactly these; None where any will do.
        members: global ranks of the group named; None where any group, or none, will do.
        cause: a word that the finding says about the cause, "" where any will do.
    """

    ids: tuple[str, ...] = ()
    ranks: tuple[int, ...] | None = None
    members: tuple[int, ...] | None = None
    cause: str = ""


@dataclass(frozen=True)
class Scenario:
    """One case.

    Attributes:
        name: of the fault.
        job: file in `jobs/`.
        options: of the job.
        plan: links and faults.
        expected: the right answer.
        planned_ms: size of the fault, ms per step; None where it has none.
        step_ms: about how long a healthy step takes.
        visible_ms: reads the size of the fault from the recorded columns.
        ends: how the job ends.
        lost: ranks whose folders get lost after the run.
        healthy_link: the link that a calibration would have measured; None where nobody calibrated.
    """

    name: str
    job: str
    options: Mapping[str, float]
    plan: Plan
    expected: Expected
    planned_ms: float | None = None
    step_ms: float = 0.0
    visible_ms: Callable[[Path], float] | None = None
    ranks: int = 4
    ends: str = EXITS
    lost: tuple[int, ...] = ()
    healthy_link: Plan | None = field(default=None)

    @property
    def args(self) -> tuple[str, ...]:
        return tuple(f"--{name.replace('_', '-')}={value}" for name, value in self.options.items())

    @property
    def share(self) -> float | None:
        """Size of the fault, as a share of the step."""
        return self.planned_ms / self.step_ms if self.planned_ms is not None and self.step_ms else None


def verdict(expected: Expected, report: Any, groups: Mapping[str, tuple[int, ...]]) -> str:
    """What is wrong with a report's answer, "" if it is right.

    Args:
        groups: members of each group by the name that reports use.
    """
    if not report.findings:
        return "" if not expected.ids else "nothing found"
    top = report.findings[0]
    if not expected.ids:
        return f"{top.id} in a healthy job"
    if top.id not in expected.ids:
        return f"{top.id} instead"
    if expected.ranks is not None and tuple(sorted(top.ranks)) != expected.ranks:
        return f"names ranks {list(top.ranks)}"
    if expected.members is not None and groups.get(top.group or "") != expected.members:
        return f"names group {top.group}"
    return "" if expected.cause in _said(top) else f"does not say {expected.cause!r}"


def _said(finding: Any) -> str:
    return " ".join([finding.title, *(evidence.name for evidence in finding.evidence)])
