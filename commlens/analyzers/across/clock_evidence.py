"""What the collectives of one communicator tell of its members' clocks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from commlens.analyzers.across.device_errors import device_error_ns
from commlens.analyzers.across.matching import EVERYONE, Matched
from commlens.analyzers.across.offsets import Bounds
from commlens.analyzers.across.order import CLOCK_NOISE_NS, LIKE_ONE_NS
from commlens.analyzers.intervals import Ints
from commlens.analyzers.ranks import RankFacts
from commlens.trace.schema import MISSING

# No rank can complete one of these before every rank has begun it. An all_to_all may have empty parts.
_BINDING = tuple(op for op in EVERYONE if op != "all_to_all")
_ASYMMETRIC = 4  # times the shortest duration that the ends of other operations may differ by
_LATEST = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Told:
    """What the collectives of one communicator tell of clocks.

    Attributes:
        together: those that all ranks leave together do so by the clocks as they are.
        wrong: collectives that contradict ranks of one host sharing a clock, summed over hosts.
        total: how many could have.
        bounds: of the second host's clock against the first's, for each pair compared.
    """

    together: bool
    wrong: int
    total: int
    bounds: dict[tuple[str, str], Bounds]


@dataclass(frozen=True)
class Summary:
    """The same without the bounds, but whose there are."""

    together: bool
    wrong: int
    total: int
    pairs: tuple[tuple[str, str], ...]


def tell(matched: Matched, ranks: Sequence[RankFacts], machines: Sequence[str], shift: Ints) -> Told:
    """What the collectives of one communicator tell.

    Args:
        matched: its collectives.
        ranks: stage one of every rank.
        machines: what tells each rank's host.
        shift: what makes the clocks of a host's ranks one, ns, shape (ranks,).
    """
    if not matched.is_op(*_BINDING).any():
        return Told(True, 0, 0, {})
    times = _Times(ranks, matched, shift)
    wrong, total = _contradictions_on_one_host(times, machines)
    (first, own), *others = _lines_by_host(times, machines).items()
    bounds = {(first, host): _bounds(times, own, lines) for host, lines in others}
    return Told(_ends_together(times), wrong, total, bounds)


def summarise(told: Told) -> Summary:
    """What all communicators' are joined by."""
    return Summary(told.together, told.wrong, told.total, tuple(told.bounds))


def _ends_together(times: _Times) -> bool:
    """Whether collectives that all ranks leave together do so by the clocks as they are."""
    known = times.symmetric & (times.ends != MISSING).all(axis=0)
    ends = times.ends[:, known]
    return not ends.size or bool(np.median(ends.max(axis=0) - ends.min(axis=0)) <= LIKE_ONE_NS)


class _Times:
    """When each member took part in the collectives of a communicator that everyone waits for."""

    def __init__(self, ranks: Sequence[RankFacts], matched: Matched, shift: Ints) -> None:
        chosen = (matched.is_op(*_BINDING) & ~matched.conflict) & ((matched.bytes != 0) | matched.is_op("barrier"))
        self.present = np.array(matched.communicator.present)
        shape = (self.present.size, int(chosen.sum()))
        self.issued, self.ends = np.full(shape, MISSING, np.int64), np.full(shape, MISSING, np.int64)
        self.symmetric = matched.is_op("all_reduce")[chosen]
        self.noise = 0
        for line, position in enumerate(self.present):
            rows, columns = matched.rows[line, chosen], ranks[position].columns
            seen = rows != MISSING
            self.issued[line] = _shifted(_began(ranks[position], rows), seen, shift[position])
            self.ends[line] = _shifted(columns.collectives["completed_ns"][rows], seen, shift[position])
            if columns.words["timing"].equals("device")[rows[seen]].any():
                self.noise = max(self.noise, CLOCK_NOISE_NS, device_error_ns(ranks[position]))


def _began(facts: RankFacts, rows: Ints) -> Ints:
    """When the rank's part cannot have been under way yet: its start where a device timed it, else its issue."""
    columns = facts.columns.collectives
    device = facts.columns.words["timing"].equals("device")[rows]
    return np.where(device, columns["started_ns"][rows], columns["issued_ns"][rows])


def _shifted(times: Ints, seen: Ints, shift: int) -> Ints:
    return np.where(seen & (times != MISSING), times + shift, MISSING)


def _contradictions_on_one_host(times: _Times, machines: Sequence[str]) -> tuple[int, int]:
    """How often ranks that share a clock complete collectives which others of them have not begun, and of how many."""
    wrong = total = 0
    for own in _lines_by_host(times, machines).values():
        ends, begun = _earliest(times.ends[own]), times.issued[own].max(axis=0)
        total += int((begun != MISSING).sum())
        wrong += int((ends < begun - max(CLOCK_NOISE_NS, times.noise)).sum())
    return wrong, total


def _lines_by_host(times: _Times, machines: Sequence[str]) -> dict[str, list[int]]:
    lines: defaultdict[str, list[int]] = defaultdict(list)
    for line, position in enumerate(times.present.tolist()):
        lines[machines[position]].append(line)
    return lines


def _earliest(times: Ints) -> Ints:
    """Smallest known time of each column, _LATEST where there is none."""
    return np.asarray(np.where(times == MISSING, _LATEST, times).min(axis=0))


def _bounds(times: _Times, of_a: list[int], of_b: list[int]) -> Bounds:
    """What each collective says of b's clock against a's, from the members' lines of the two hosts."""
    lines = [of_a, of_b]
    known = np.ones(times.ends.shape[1], bool)
    for own in lines:
        known &= ((times.ends[own] != MISSING) & (times.issued[own] != MISSING)).all(axis=0)
    ends, issued = times.ends[:, known], times.issued[:, known]
    end_a, end_b = (ends[own].min(axis=0) for own in lines)
    begun_a, begun_b = (issued[own].max(axis=0) for own in lines)
    both = lines[0] + lines[1]
    shortest = (ends[both] - issued[both]).min(axis=0)
    slack = np.maximum(shortest, 1) + times.noise
    # The last rank of an all_gather or a barrier may be done at once, while the others need the network once more.
    whole = times.symmetric[known]
    if not whole.all():
        usual = np.median(slack[whole]) if whole.any() else _ASYMMETRIC * np.median(slack) if slack.size else 0
        slack = np.where(whole, slack, np.maximum(slack, np.int64(usual)))
    if times.noise:  # devices leave an all_reduce together as far as a profiler can tell, however long it takes
        slack = np.where(whole, times.noise, slack)
    return Bounds(end_b, begun_a - end_b - times.noise, end_a - begun_b + times.noise, end_a - end_b, slack)
