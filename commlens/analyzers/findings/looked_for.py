"""What findings were looked for, and what could not be: where that is not known, nothing is called healthy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from commlens.analyzers.across.lateness import FEWEST_STEPS
from commlens.analyzers.across.transfers import ALIGNED, CLOCK_FREE
from commlens.analyzers.numerals import counted
from commlens.analyzers.report import Report
from commlens.trace.schema import POINT_TO_POINT

LATE, SLOW, SMALL, UNEVEN = "late ranks", "slow groups", "small collectives", "uneven all_to_alls"
HANG = "hangs"
LINKS = "full, damaged, bypassed and shared links"
_BELOW = "see the end"
_NO_STEPS = "no steps are known"
ONLY_SUMS = "by sums, which show only those that are late all the time"

# Every finding there is, and the kind of looking that would have found it; None: of the job's strategy, which takes
# the time budget and the job's models.
FINDINGS = {
    "straggler-rank": LATE,
    "rotating-imbalance": LATE,
    "host-stall": LATE,
    "slow-link": SLOW,
    "slow-group": SLOW,
    "transport-fallback": LINKS,
    "one-nic": LINKS,
    "congestion": LINKS,
    "interference": LINKS,
    "small-collectives": SMALL,
    "expert-imbalance": UNEVEN,
    "contention": None,
    "bucket-size": None,
    "per-parameter-all-reduce": None,
    "no-overlap": None,
    "redundant-sync": None,
    "wire-dtype": None,
    "buffer-broadcast": None,
    "find-unused": None,
    "fsdp-unit-size": None,
    "pipeline-bubble": None,
    "last-bucket-tail": None,
    "fsdp-reshard": None,
    "fsdp-prefetch": None,
    "hybrid-shard": None,
    "compression": None,
    "communicate-less": None,
    "hang": HANG,
    "desync": HANG,
    "exception": HANG,
}


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
    if report.aggregates is not None and report.aggregates.only:
        return ONLY_SUMS
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
    if not report.run.steps.analyzed and (known or pairs_of_ranks):
        return _NO_STEPS
    alike = max([*groups.values(), *pairs_of_ranks.values()], default=0) > 1
    if alike:
        return None
    if _abstained(report, "calibrated-links"):
        return _BELOW
    if any(line.efficiency is not None for line in known):
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
    return None if report.run.steps.analyzed else _NO_STEPS


def _uneven(report: Report) -> str | None:
    return None if report.run.steps.analyzed else _NO_STEPS
