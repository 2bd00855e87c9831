"""What was compared where nothing was found: a job is never called healthy in what could not be looked at."""

from __future__ import annotations

from collections import defaultdict

from rich.table import Table

from commlens.analyzers import Report
from commlens.analyzers.findings.context import LEAST_SHARE
from commlens.analyzers.findings.looked_for import looked_for
from commlens.render.words import counted, pairs, percent

FLOOR = percent(LEAST_SHARE)


def compared(report: Report) -> Table:
    """What was looked for and not found, and what could not be looked at."""
    found = dict(looked_for(report))
    seen = [name for name, obstacle in found.items() if obstacle is None]
    unseen: defaultdict[str, list[str]] = defaultdict(list)
    for name, obstacle in found.items():
        if obstacle is not None:
            unseen[obstacle].append(name)
    over = f", over {counted(report.run.steps.analyzed, 'step')}" if report.run.steps.analyzed else ""
    rows = [("none", f"above {FLOOR} of a step{over}; compared: {', '.join(seen)}")] if seen else []
    return pairs([*rows, *(("not known", f"{', '.join(names)}: {why}") for why, names in unseen.items())])
