"""How large each kind of fault shows in a recording, ms per step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from statistics import fmean, median

from lab import seen
from lab.seen import Matched

Measure = Callable[[Path], float]


def lateness(rank: int, blocking: bool, steps: Callable[[int], bool] = lambda _: True) -> Measure:
    """How late a rank comes in a step, median of the steps asked for.

    Args:
        blocking: the job stands still for each collective, so a step's latenesses add up; otherwise the last
            collective of a step shows all of it.
        steps: which.
    """

    def measure(path: Path) -> float:
        of_step = seen.by_step(seen.matched(path))
        return median(_late(found, rank, blocking) for step, found in of_step.items() if steps(step))

    return measure


def _late(found: list[Matched], rank: int, blocking: bool) -> float:
    late = [each.late_ms(rank) for each in found if rank in each.arrivals and len(each.arrivals) > 2]
    return sum(late) if blocking else max(late)


def turns(whose: Callable[[int], int], blocking: bool) -> Measure:
    """How late the rank comes whose turn it is."""

    def measure(path: Path) -> float:
        of_step = seen.by_step(seen.matched(path))
        return median(_late(found, whose(step), blocking) for step, found in of_step.items())

    return measure


def imbalance(path: Path) -> float:
    """By how much a rank is ahead of the last one at the end of a step, where nothing held it up before: mean."""
    return fmean(max(each.spread_ms for each in found) for found in seen.by_step(seen.matched(path)).values())


def waiting(path: Path) -> float:
    """All waiting in a step, mean over ranks: what is left of a healthy job."""
    return median(sum(each.wait_ms for each in found) for found in seen.by_step(seen.matched(path)).values())


def slowness(members: tuple[int, ...], healthy_ms: float) -> Measure:
    """Transfer time of a group in a step, beyond what a healthy link takes."""

    def measure(path: Path) -> float:
        names = seen.groups(path)
        mine = [each for each in seen.matched(path) if names[each.group] == members]
        return median(sum(each.transfer_ms for each in found) for found in seen.by_step(mine).values()) - healthy_ms

    return measure


def small_messages(path: Path) -> float:
    """Transfer time of the messages below 4 KiB in a step."""
    small = [each for each in seen.matched(path) if each.num_bytes < 4096]
    return median(sum(each.transfer_ms for each in found) for found in seen.by_step(small).values())
