"""Two reports of one job side by side: what became slower, what faster."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from commlens.analyzers.report import Finding, Report

SCHEMA_VERSION = 1
_PARTS = ("compute_ms", "exposed_transfer_ms", "exposed_wait_ms", "exposed_unsplit_ms", "other_ms", "hidden_ms")


@dataclass(frozen=True)
class Pair:
    """One quantity, ms; None where a report does not know it."""

    before_ms: float | None
    after_ms: float | None

    @property
    def change_ms(self) -> float | None:
        """How much longer it became."""
        if self.before_ms is None or self.after_ms is None:
            return None
        return round(self.after_ms - self.before_ms, 6)

    @property
    def change_percent(self) -> float | None:
        """The same in percent of before."""
        change = self.change_ms
        return round(100 * change / self.before_ms, 3) if change is not None and self.before_ms else None

    def to_dict(self) -> dict[str, Any]:
        """Both sides and the difference."""
        return {**asdict(self), "change_ms": self.change_ms, "change_percent": self.change_percent}


@dataclass(frozen=True)
class CollectivePair:
    """One group, operation and message size; a side without it has counts of None."""

    group: str
    op: str
    bytes: int | None
    count_per_step: tuple[float | None, float | None]
    transfer: Pair
    exposed: Pair


@dataclass(frozen=True)
class RankPair:
    """One rank: its waiting, and the others' waiting for it, ms per step."""

    rank: int
    wait: Pair
    caused_wait: Pair


@dataclass(frozen=True)
class Comparison:
    """Two runs side by side.

    Attributes:
        before: path of the first.
        after: path of the second.
        notes: where they are not the same job.
        step: time of a step.
        parts: the time budget, by part.
        collectives: those whose exposed time differs most first.
        ranks: ascending.
        appeared: findings of the second only.
        gone: findings of the first only.
    """

    before: str
    after: str
    notes: tuple[str, ...]
    step: Pair
    parts: Mapping[str, Pair]
    collectives: tuple[CollectivePair, ...]
    ranks: tuple[RankPair, ...]
    appeared: tuple[Finding, ...]
    gone: tuple[Finding, ...]

    def to_dict(self) -> dict[str, Any]:
        """The contract of `commlens compare --format json`."""
        from commlens._version import __version__

        return {
            "schema_version": SCHEMA_VERSION,
            "producer": f"commlens {__version__}",
            **{name: getattr(self, name) for name in ("before", "after")},
            "notes": list(self.notes),
            "step": self.step.to_dict(),
            "time_budget": {name: pair.to_dict() for name, pair in self.parts.items()},
            "collectives": [_collective_dict(each) for each in self.collectives],
            "ranks": [
                {"rank": each.rank, "wait": each.wait.to_dict(), "caused_wait": each.caused_wait.to_dict()}
                for each in self.ranks
            ],
            "findings": {"appeared": _told(self.appeared), "gone": _told(self.gone)},
        }


def compare(before: Report, after: Report, models: tuple[str | None, str | None] = (None, None)) -> Comparison:
    """Compare two reports.

    Args:
        before: of the first run.
        after: of the second.
        models: signatures of their models (`trace.models`), None where not known.
    """
    parts = {name: Pair(getattr(before.time_budget, name), getattr(after.time_budget, name)) for name in _PARTS}
    known = {_key(finding) for finding in before.findings}, {_key(finding) for finding in after.findings}
    return Comparison(
        before=before.run.path,
        after=after.run.path,
        notes=_differences(before, after, models),
        step=Pair(before.time_budget.step_ms, after.time_budget.step_ms),
        parts=parts,
        collectives=_collectives(before, after),
        ranks=_ranks(before, after),
        appeared=tuple(finding for finding in after.findings if _key(finding) not in known[0]),
        gone=tuple(finding for finding in before.findings if _key(finding) not in known[1]),
    )


def _differences(before: Report, after: Report, models: tuple[str | None, str | None]) -> tuple[str, ...]:
    """Why two runs may not be comparable, one line each."""
    sides = [(report.run.world_size, report.run.backend, report.run.torch) for report in (before, after)]
    names = ("world sizes", "backends", "versions of torch")
    notes = [
        f"different {name}: {one} and {other}"
        for name, one, other in zip(names, *sides, strict=True)
        if one != other and None not in (one, other)
    ]
    if models[0] != models[1] and None not in models:
        notes.append("different models: their parameters are not the same")
    return tuple(notes)


def _collectives(before: Report, after: Report) -> tuple[CollectivePair, ...]:
    sides = [{(each.group, each.op, each.bytes): each for each in report.collectives} for report in (before, after)]
    found = []
    for group, op, size in _keys(*sides):
        lines = [side.get((group, op, size)) for side in sides]
        counts = tuple(line.count_per_step if line is not None else None for line in lines)
        pairs = _pair(lines, "transfer_ms_p50"), _pair(lines, "exposed_ms_per_step")
        found.append(CollectivePair(group, op, size, (counts[0], counts[1]), *pairs))
    return tuple(sorted(found, key=lambda each: -abs((each.exposed.after_ms or 0) - (each.exposed.before_ms or 0))))


def _ranks(before: Report, after: Report) -> tuple[RankPair, ...]:
    sides = [{each.rank: each for each in report.ranks} for report in (before, after)]
    found = []
    for rank in sorted(_keys(*sides)):
        lines = [side.get(rank) for side in sides]
        found.append(RankPair(rank, _pair(lines, "wait_ms_per_step"), _pair(lines, "caused_wait_ms_per_step")))
    return tuple(found)


def _pair(lines: Sequence[object], name: str) -> Pair:
    """A field of both sides' lines; unknown where a side has none."""
    before, after = (getattr(line, name, None) for line in lines)
    return Pair(before, after)


def _keys(one: Mapping[Any, Any], other: Mapping[Any, Any]) -> list[Any]:
    """Keys of both, in the order of the first."""
    return list({**one, **other})


def _key(finding: Finding) -> Hashable:
    """What makes two findings the same cause."""
    return finding.id, finding.ranks, finding.group


def _collective_dict(pair: CollectivePair) -> dict[str, Any]:
    return {
        **{name: getattr(pair, name) for name in ("group", "op", "bytes")},
        "count_per_step": {"before": pair.count_per_step[0], "after": pair.count_per_step[1]},
        "transfer": pair.transfer.to_dict(),
        "exposed": pair.exposed.to_dict(),
    }


def _told(findings: Sequence[Finding]) -> list[dict[str, Any]]:
    names = ("id", "title", "severity", "ranks", "group")
    return [
        {name: list(value) if isinstance(value := getattr(finding, name), tuple) else value for name in names}
        for finding in findings
    ]
