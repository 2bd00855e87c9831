"""Pieces that every finding has."""

from __future__ import annotations

import shlex

from commlens.analyzers.findings.command import launch_line
from commlens.analyzers.findings.context import Context
from commlens.analyzers.report import Action
from commlens.trace.changes import obstacle, parse

_HIGH = 0.1  # of a step
RECORD_AGAIN = "record the changed job and commlens compare OLD NEW"


def severity(context: Context, ms: float) -> str:
    """How bad so much time a step is."""
    return "high" if context.step_ms and ms >= _HIGH * context.step_ms else "medium"


def advice(text: str, *, change: str = "", risk: str = "none: looking only", verify: str) -> Action:
    """What to do, without a price: that takes the simulator."""
    return Action(text=text, change=change, fix=None, risk=risk, min_torch=None, predicted=None, verify=verify)


def fixing(context: Context, fix: str, text: str, *, change: str) -> Action:
    """What to do where the vocabulary has a word for it, with the risk it says and the command that tries it.

    `fix` is left out where COMMLENS_FIX cannot apply it; then the simulator can still say what to expect.
    """
    meant, run = parse(fix), shlex.quote(context.source)
    if obstacle(meant, context.run.get("backend")) is None:
        verify = f"commlens verify {run} --fix {fix} -- {launch_line(context.run, context.infos)}"
        return Action(text, change, fix=fix, risk=meant.risk, min_torch=None, predicted=None, verify=verify)
    verify = f"commlens whatif {run} --set {fix}, then {RECORD_AGAIN}"
    return Action(text, change, fix=None, risk=meant.risk, min_torch=None, predicted=None, verify=verify)


def by_hand(text: str, *, change: str, risk: str) -> Action:
    """What to do that only the job's code can be changed for."""
    return advice(text, change=change, risk=risk, verify=RECORD_AGAIN)
