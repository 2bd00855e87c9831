"""How many collectives of devices have the device's times, who told them, how sure they are, and what was not seen."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from commlens.analyzers.device_operations import DeviceOperations
from commlens.analyzers.held import each
from commlens.analyzers.ranks import RankFacts
from commlens.trace.schema import DEVICE_CLOCKS

if TYPE_CHECKING:
    from commlens.trace import Run

_NO_ROOM: Final = ("no_slot", "no_room")  # of the plugin's tallies: operations it had no room for


@dataclass(frozen=True)
class DeviceCoverage:
    """Device times of collectives, and the operations of NCCL behind them; sums over the ranks.

    Attributes:
        collectives: rows that devices ran: a collective of 8 ranks counts 8 times.
        by_plugin: of these, timed by NCCL's profiler plugin.
        in_windows: of these, timed in deep windows.
        unknown: of these, those of which the host's call alone is known.
        error_us_p50: half of the plugin's times are right to this much on the host's clock; None where that is not
            known of any.
        error_us_p95: 95 % are.
        clocks: operations by how their times were told, the words of `trace.schema.DEVICE_CLOCKS`.
        operations: of NCCL that the plugin saw.
        unmatched: of these, those that belong to no recorded collective, replayed ones aside.
        replayed: of these, those that CUDA graphs replayed.
        copy_engine: of these, those that copy engines moved, which tell no times.
        dropped: operations that the plugin had no room for.
        cut_off: operations whose communicator ended first.
        unseen: operations that must have ended, but not all of whose channels told so.
        under_way: operations under way when recording ended.
        steps_dropped: steps of network proxies that the plugin had no room for: their waits are missing.
        foreign: operations that a proxy moved for another process: their waits are missing.
    """

    collectives: int
    by_plugin: int
    in_windows: int
    unknown: int
    error_us_p50: float | None
    error_us_p95: float | None
    clocks: dict[str, int]
    operations: int
    unmatched: int
    replayed: int
    copy_engine: int
    dropped: int
    cut_off: int
    unseen: int
    under_way: int
    steps_dropped: int
    foreign: int

    @property
    def notes(self) -> tuple[str, ...]:
        """What is missing, one line; none where nothing is."""
        missing = {
            "dropped for want of room": self.dropped,
            "cut off as their communicator ended": self.cut_off,
            "not seen to their end": self.unseen,
            "under way when recording ended": self.under_way,
            "whose clocks contradict each other": self.clocks.get("contradictory", 0),
        }
        parts = [f"{count:,} {how}" for how, count in missing.items() if count]
        waits = {"steps of network proxies had no room": self.steps_dropped, "are other processes'": self.foreign}
        without = [f"{count:,} {how}" for how, count in waits.items() if count]
        return (
            *([f"operations of NCCL: {', '.join(parts)}"] if parts else []),
            *([f"proxy waits are too low: {', '.join(without)}"] if without else []),
        )


def find_device_coverage(run: Run, ranks: Sequence[RankFacts]) -> DeviceCoverage | None:
    """How far device times are known; None where no device was recorded by commlens itself."""
    own = [facts for facts in ranks if _is_own(facts)]
    found = [facts.operations for facts in own if facts.operations is not None]
    counts = np.array(each(_timed, ranks), np.int64).reshape(-1, 3).sum(axis=0)
    tallies = [_tallies(run.ranks[facts.rank].info) for facts in own]
    if not counts.sum() and not found:
        return None
    by_plugin, in_windows, unknown = (int(count) for count in counts)
    p50, p95 = _errors(found)
    return DeviceCoverage(
        collectives=by_plugin + in_windows + unknown,
        by_plugin=by_plugin,
        in_windows=in_windows,
        unknown=unknown,
        error_us_p50=p50,
        error_us_p95=p95,
        clocks={word: count for word in DEVICE_CLOCKS if (count := sum(one.clocks.get(word, 0) for one in found))},
        operations=sum(one.count for one in found),
        unmatched=sum(one.unmatched for one in found),
        replayed=sum(one.graph for one in found),
        copy_engine=sum(one.copy_engine for one in found),
        dropped=sum(_dropped(run, facts, tally) for facts, tally in zip(own, tallies, strict=True)),
        **{name: sum(one.states.get(name, 0) for one in found) for name in ("cut_off", "unseen", "under_way")},
        steps_dropped=sum(tally.get("no_step", 0) for tally in tallies),
        foreign=sum(tally.get("foreign", 0) for tally in tallies),
    )


def _is_own(facts: RankFacts) -> bool:
    """Whether commlens itself recorded the rank, or read NCCL's operations of it."""
    return facts.operations is not None or not facts.who.imported


def _timed(facts: RankFacts) -> tuple[int, int, int]:
    """Collectives timed by the plugin, timed in deep windows, and not timed; of ranks that commlens recorded."""
    if not _is_own(facts):
        return 0, 0, 0
    timing, operations = facts.columns.words["timing"], facts.operations
    device, unknown = timing.equals("device"), timing.equals("enqueue_only")
    plugin = operations.by_plugin if operations is not None else np.zeros(device.size, bool)
    return int(plugin.sum()), int((device & ~plugin).sum()), int((unknown & ~plugin).sum())


def _errors(found: Sequence[DeviceOperations]) -> tuple[float | None, float | None]:
    known = np.concatenate([np.zeros(0, np.int64), *(each.error_ns for each in found)])
    if not known.size:
        return None, None
    p50, p95 = np.quantile(known, (0.5, 0.95))
    return round(float(p50) / 1e3, 3), round(float(p95) / 1e3, 3)


def _tallies(info: Mapping[str, Any]) -> dict[str, int]:
    """What the plugin itself counted, as rank.json has it."""
    told = info.get("nccl_plugin")
    return {name: value for name, value in told.items() if type(value) is int} if isinstance(told, dict) else {}


def _dropped(run: Run, facts: RankFacts, tallies: Mapping[str, int]) -> int:
    """Of the plugin's file and of rank.json the one that knows more: either may have been written last."""
    times = run.ranks[facts.rank].device_times
    return max(times.lost if times is not None else 0, sum(tallies.get(name, 0) for name in _NO_ROOM))


def plugin_errors(run: Run) -> list[str]:
    """Notes of ranks whose plugin could not write."""
    errors = {number: _tallies(rank.info).get("error", 0) for number, rank in sorted(run.ranks.items())}
    return [
        f"rank {number}: NCCL's operations could not all be written: {os.strerror(error)}"
        for number, error in errors.items()
        if error > 0
    ]
