"""What was compared where nothing was found: a job is never called healthy in what could not be looked at."""

from __future__ import annotations

from collections import defaultdict

from rich.table import Table

from commlens.analyzers import Report
from commlens.analyzers.findings.context import LEAST_SHARE
from commlens.analyzers.findings.looked_for import looked_for
from commlens.render.words import counted, pairs, percent

FLOOR = percent(LEAST_SHARE)


def least_cost(report: Report) -> str:
    """What a cause costs at least to be told: "above 2 % of a step"; "" where no step is known."""
    summed = report.aggregates is not None and report.aggregates.step_ms_mean is not None
    return f"above {FLOOR} of a step" if report.run.steps.analyzed or summed else ""


def compared(report: Report) -> Table:
    """What was looked for and not found, and what could not be looked at."""
    found = dict(looked_for(report))
    seen = [name for name, obstacle in found.items() if obstacle is None]
    unseen: defaultdict[str, list[str]] = defaultdict(list)
    for name, obstacle in found.items():
        if obstacle is not None:
            unseen[obstacle].append(name)
    over = f", over {counted(report.run.steps.analyzed, 'step')}" if report.run.steps.analyzed else ""
    what = f"{least}{over}" if (least := least_cost(report)) else "over the whole trace"
    rows = [("none", f"{what}; compared: {', '.join(seen)}")] if seen else []
    return pairs([*rows, *(("not known", f"{', '.join(names)}: {why}") for why, names in unseen.items())])
