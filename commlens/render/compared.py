"""What was compared where nothing was found: a job is never called healthy in what could not be looked at."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator

from rich.table import Table

from commlens.analyzers import Report
from commlens.analyzers.across.lateness import FEWEST_STEPS
from commlens.analyzers.across.transfers import ALIGNED, CLOCK_FREE
from commlens.analyzers.findings.context import LEAST_SHARE
from commlens.render.words import counted, pairs, percent
from commlens.trace.schema import POINT_TO_POINT

FLOOR = percent(LEAST_SHARE)
LATE, SLOW, SMALL, UNEVEN = "late ranks", "slow groups", "small collectives", "uneven all_to_alls"
HANG = "hangs"
LINKS = "full, damaged, bypassed and shared links"
_BELOW = "see the end"


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


def looked_for(report: Report) -> Iterator[tuple[str, str | None]]:
    """Each kind of finding, with why it could not be looked for, None where it was."""
    yield LATE, _late(report)
    yield SLOW, _slow(report)
    yield SMALL, _small(report)
    if len(report.run.hosts) > 1:
        yield LINKS, _links(report)
    if _abstained(report, "hang") or not (report.run.imported and report.device_lanes):
        yield HANG, _BELOW if _abstained(report, "hang") else None
    if any(line.op == "all_to_all" for line in report.collectives):
        yield UNEVEN, _uneven(report)


def _late(report: Report) -> str | None:
    steps = report.run.steps.analyzed
    if _abstained(report, "stragglers"):
        return _BELOW
    if 0 < steps < FEWEST_STEPS and not report.run.imported:  # of those single collectives tell as well
        return f"{counted(steps, 'step')} of at least {FEWEST_STEPS}"
    joined = report.coverage.clock.refusal is None
    if joined and all(line.arrives_last_share is None for line in report.ranks):
        return "no collective that needs every rank has known arrivals"
    return None


def _abstained(report: Report, analysis: str) -> bool:
    return any(each.analysis == analysis for each in report.abstentions)


def _slow(report: Report) -> str | None:
    """Links are compared with the like in another group, or with a calibration."""
    known = [line for line in report.collectives if line.bandwidth_basis in (ALIGNED, CLOCK_FREE)]
    groups = Counter((line.op, line.bytes, line.group_size) for line in known)
    pairs_of_ranks = Counter(line.op for line in report.cost_model if line.op in POINT_TO_POINT)
    alike = max([*groups.values(), *pairs_of_ranks.values()], default=0) > 1
    if alike or any(line.efficiency is not None for line in known):
        return None
    if not known:
        return "no transfer without waiting is known"
    return "no two groups are alike, and there is no calibration to compare with (commlens calibrate)"


def _links(report: Report) -> str | None:
    """Counters are judged where collectives between hosts moved bytes."""
    if any(line.expected_low_gb and line.tx_gb is not None for line in report.links):
        return None
    return next((each.reason for each in report.abstentions if each.analysis == "links"), "no bytes between hosts")


def _small(report: Report) -> str | None:
    known = any(line.bandwidth_basis in (ALIGNED, CLOCK_FREE) for line in report.collectives)
    if not known:
        return "no transfer without waiting is known"
    return None if report.run.steps.analyzed else "no steps are known"


def _uneven(report: Report) -> str | None:
    return None if report.run.steps.analyzed else "no steps are known"
