"""How predictions fared when they were tried: the ledger, by the name of the change."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median

from commlens.analyzers.verification import CONFIRMED
from commlens.errors import UsageError
from commlens.trace.changes import parse_all
from commlens.trace.ledger import Entry


@dataclass(frozen=True)
class Track:
    """One kind of change, over all jobs of this user.

    Attributes:
        change: its name, as "ddp.bucket_cap_mb"; names joined by "," where they were tried together.
        tried: how often.
        confirmed: how often steps became shorter, beyond doubt.
        predicted: how often there was a prediction.
        within: in how many of those the measured gain and the predicted one agreed within their intervals.
        error_percent: median of predicted less measured gain, absolute, in percent of the step before; None
            where nothing was predicted.
    """

    change: str
    tried: int
    confirmed: int
    predicted: int
    within: int
    error_percent: float | None


def track_record(entries: Iterable[Entry]) -> tuple[Track, ...]:
    """A line for every kind of change that was tried, by name."""
    tried: dict[str, list[Entry]] = {}
    for entry in entries:
        if name := _name(entry):
            tried.setdefault(name, []).append(entry)
    return tuple(_track(name, those) for name, those in sorted(tried.items()))


def changed_names(fix: str) -> str:
    """The names that a fix changes, joined by ",".

    Raises:
        UsageError: It is no fix.
    """
    return ",".join(sorted(change.name for change in parse_all(fix)))


def _name(entry: Entry) -> str | None:
    try:
        return changed_names(entry.fix)
    except UsageError:  # of a newer version, or edited
        return None


def _track(name: str, those: list[Entry]) -> Track:
    judged = [(each.predicted, each.measured) for each in those if each.predicted is not None]
    errors = [
        100 * abs(predicted["gain_ms"] - measured["gain_ms"]) / measured["before_ms"]
        for predicted, measured in judged
        if measured.get("before_ms", 0) > 0
    ]
    return Track(
        change=name,
        tried=len(those),
        confirmed=sum(each.verdict == CONFIRMED for each in those),
        predicted=len(judged),
        within=sum(p["low_ms"] <= m["high_ms"] and m["low_ms"] <= p["high_ms"] for p, m in judged),
        error_percent=round(median(errors), 2) if errors else None,
    )
