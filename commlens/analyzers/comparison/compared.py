"""The comparison: two runs side by side, as plain frozen data.

`Comparison.to_dict` is the contract of `commlens compare --format json`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from commlens.analyzers.comparison.changed import Changed
from commlens.analyzers.comparison.difference import Difference
from commlens.analyzers.report import Finding

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Seen:
    """What a side rests on.

    Attributes:
        path: of the run.
        world_size: ranks of the job.
        ranks: that were recorded.
        steps: that were analysed.
        steps_how: how they were told apart.
        collectives: rows of all ranks.
        matched: share of them with a counterpart on every recorded member, 0..1; None where there are none.
        dropped: collectives that the recorder had no room for.
        clock_uncertainty_us: None where ranks are not compared.
    """

    path: str
    world_size: int
    ranks: int
    steps: int
    steps_how: str
    collectives: int
    matched: float | None
    dropped: int
    clock_uncertainty_us: float | None


@dataclass(frozen=True)
class CollectivePair:
    """One group, operation and message size; a side without it has counts of None."""

    group: str
    op: str
    bytes: int | None
    count_per_step: tuple[float | None, float | None]
    transfer: Difference
    exposed: Difference


@dataclass(frozen=True)
class GroupPair:
    """All collectives of a group: the sum of its lines' exposed time."""

    group: str
    exposed: Difference


@dataclass(frozen=True)
class RankPair:
    """One rank: its step, its waiting, and the others' waiting for it, ms per step."""

    rank: int
    step: Difference
    compute: Difference
    exposed: Difference
    wait: Difference
    caused_wait: Difference


@dataclass(frozen=True)
class FindingPair:
    """A finding of both runs, as the second says it, and its ceiling in both."""

    finding: Finding
    ceiling: Difference


@dataclass(frozen=True)
class Comparison:
    """Two runs side by side.

    Attributes:
        before: the first.
        after: the second.
        level: of the intervals, 0..1: of `step` alone, and of all of a table together.
        alike_runs: further runs of before's job that told what such runs differ by.
        refusals: why the comparison would be a lie; its numbers are shown at the reader's own risk.
        warnings: what to bear in mind.
        changed: settings that differ.
        step: time of a step.
        parts: the time budget, by part; exposed_ms is all three exposed parts.
        groups: those whose exposed time differs most first.
        collectives: likewise.
        ranks: ascending.
        appeared: findings of the second only.
        gone: findings of the first only.
        stayed: findings of both.
    """

    before: Seen
    after: Seen
    level: float
    alike_runs: int
    refusals: tuple[str, ...]
    warnings: tuple[str, ...]
    changed: tuple[Changed, ...]
    step: Difference
    parts: Mapping[str, Difference]
    groups: tuple[GroupPair, ...]
    collectives: tuple[CollectivePair, ...]
    ranks: tuple[RankPair, ...]
    appeared: tuple[Finding, ...]
    gone: tuple[Finding, ...]
    stayed: tuple[FindingPair, ...]

    def to_dict(self) -> dict[str, Any]:
        """The JSON contract: dicts, lists, strings, finite numbers and None."""
        from commlens._version import __version__

        return {
            "schema_version": SCHEMA_VERSION,
            "producer": f"commlens {__version__}",
            "before": asdict(self.before),
            "after": asdict(self.after),
            "level": self.level,
            "alike_runs": self.alike_runs,
            "refusals": list(self.refusals),
            "warnings": list(self.warnings),
            "changed": [asdict(each) for each in self.changed],
            "step": self.step.to_dict(),
            "time_budget": {name: pair.to_dict() for name, pair in self.parts.items()},
            "groups": [_told(each, "group") for each in self.groups],
            "collectives": [_collective(each) for each in self.collectives],
            "ranks": [_told(each, "rank") for each in self.ranks],
            "findings": {
                "appeared": [_named(each) for each in self.appeared],
                "gone": [_named(each) for each in self.gone],
                "stayed": [_named(each.finding) | {"ceiling": each.ceiling.to_dict()} for each in self.stayed],
            },
        }


def _told(pair: object, *names: str) -> dict[str, Any]:
    """Names of a pair, then its differences."""
    own = {name: value.to_dict() for name, value in vars(pair).items() if isinstance(value, Difference)}
    return {**{name: getattr(pair, name) for name in names}, **own}


def _collective(pair: CollectivePair) -> dict[str, Any]:
    before, after = pair.count_per_step
    told = _told(pair, "group", "op", "bytes")
    return {**told, "count_per_step": {"before": before, "after": after}}


def _named(finding: Finding) -> dict[str, Any]:
    names: Sequence[str] = ("id", "title", "severity", "ranks", "group", "ceiling_ms")
    return {name: list(value) if isinstance(value := getattr(finding, name), tuple) else value for name in names}
