"""Aggregates of all ranks as lines of the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from commlens.analyzers.across.matching import EVERYONE
from commlens.analyzers.aggregated.joined_sums import JoinedSums, Key
from commlens.analyzers.aggregated.lines import DEFINITION, AggregateLine, AggregateRank, Aggregates
from commlens.analyzers.aggregated.rank_sums import RankSums
from commlens.analyzers.grouped import Floats, sums
from commlens.analyzers.identity import Identity
from commlens.analyzers.intervals import Ints
from commlens.trace.aggregates import WARM_UP, bin_bounds
from commlens.trace.ops import message_bytes
from commlens.trace.schema import MISSING, OPS

_MS = 1e-6


def summarise(
    who: Sequence[Identity],
    held: Sequence[RankSums | None],
    joined: JoinedSums,
    descriptions: Mapping[str, str],
    only: bool,
) -> Aggregates:
    """What the report says of them.

    Args:
        who: the ranks, ascending.
        held: what each one's aggregates tell.
        joined: the same side by side.
        descriptions: of groups, by name.
        only: nothing else was recorded of the run's collectives.
    """
    own = [held[position] for position in joined.ranks]
    each = [one for one in own if one is not None]
    count, length = sum(one.steps[0] for one in each), sum(one.steps[1] for one in each)
    p50, p95 = _percentiles(_pooled([one.step_bins for one in each]), (0.5, 0.95))
    return Aggregates(
        ranks=len(each),
        only=only,
        from_step=min((one.from_step for one in each if one.from_step is not None), default=None),
        stepless=not bool((joined.from_step >= WARM_UP).any()),
        steps=max((one.steps[0] for one in each), default=0),
        collectives=int(joined.column("count").sum()),
        step_ms_mean=_ms(length / count) if count else None,
        step_ms_p50=_ms(p50),
        step_ms_p95=_ms(p95),
        dropped=sum(one.dropped for one in each),
        definition=DEFINITION,
        per_rank=_ranks(who, held, joined),
        lines=_lines(who, each, joined, descriptions),
    )


def _ranks(who: Sequence[Identity], held: Sequence[RankSums | None], joined: JoinedSums) -> tuple[AggregateRank, ...]:
    size = len(who)
    late = joined.from_step > 0
    counts = sums(joined.column("count"), joined.position, size)
    blocked = sums(np.where(late, joined.column("blocked_ns"), 0), joined.position, size)
    waits, compared = sums(joined.standstill_ns, joined.position, size), sums(joined.compared, joined.position, size)
    receives = np.where(late, joined.message_wait_ns, 0.0)
    messages = sums(receives, joined.position, size)
    found = []
    for position in joined.ranks:
        one = held[position]
        steps, length = one.steps if one is not None else (0, 0)
        found.append(
            AggregateRank(
                rank=who[position].rank,
                host=who[position].host,
                collectives=int(counts[position]),
                step_ms=_ms(length / steps) if steps else None,
                blocked_ms_per_step=_ms(blocked[position] / steps) if steps else None,
                wait_ms_per_step_at_least=_ms(waits[position] / steps) if steps and compared[position] else None,
                message_wait_ms_per_step=_ms(messages[position] / steps) if steps and receives.any() else None,
            )
        )
    return tuple(found)


def _lines(
    who: Sequence[Identity], each: Sequence[RankSums], joined: JoinedSums, descriptions: Mapping[str, str]
) -> tuple[AggregateLine, ...]:
    size = len(joined.keys)
    if not size:
        return ()
    total = {name: sums(joined.column(name), joined.line, size) for name in _TOTALS}
    longest = np.full(size, MISSING, np.int64)
    np.maximum.at(longest, joined.line, joined.column("longest_ns"))
    pairs = np.unique(joined.line * (len(joined.ranks) + 1) + np.searchsorted(joined.ranks, joined.position))
    recorded = np.bincount(pairs // (len(joined.ranks) + 1), minlength=size)
    steps = np.array([one.steps[0] for one in each])[np.searchsorted(joined.ranks, joined.position)]
    late = joined.from_step > 0
    of_steps = sums(np.where(late, joined.column("count"), 0), joined.line, size)
    in_steps = _steps_of_lines(joined, steps, size)
    binned = _percentiles(_line_bins(each, joined, size), (0.5, 0.95))
    half, most = (np.minimum(found_ns, longest) for found_ns in binned)  # a bin may end after it
    shared = np.where(joined.compared, joined.column("count"), 0)
    counted = sums(shared, joined.line, size)
    least = sums(np.where(joined.compared, joined.least_ns, 0.0) * shared, joined.line, size)
    waits = sums(joined.wait_ns, joined.line, size)
    last = _last(joined, size)
    found = []
    for place in np.lexsort((np.arange(size), -waits)).tolist():
        key, ended, known = joined.keys[place], total["ended"][place], counted[place]
        position, share = last[place]
        found.append(
            AggregateLine(
                group=key.group,
                group_desc=descriptions.get(key.group, ""),
                members=len(key.members) or None,
                recorded=int(recorded[place]),
                op=key.op,
                dtype=key.dtype,
                bytes=_bytes(key),
                count=int(total["count"][place]),
                total_bytes=int(total["total_bytes"][place]),
                count_per_step=round(float(of_steps[place] / in_steps[place]), 3) if in_steps[place] else None,
                ended=round(float(ended / total["count"][place]), 4) if total["count"][place] else 0.0,
                duration_ms_mean=_ms(total["duration_ns"][place] / ended) if ended else None,
                duration_ms_p50=_ms(half[place]),
                duration_ms_p95=_ms(most[place]),
                duration_ms_longest=_ms(longest[place]) if longest[place] >= 0 else None,
                blocked_ms_mean=_mean_ms(total["blocked_ns"][place], total["waits"][place]),
                compared=_share(key, known, total["count"][place]),
                transfer_ms_at_most=_mean_ms(least[place], known),
                wait_ms_at_least=_mean_ms(waits[place], known),
                last_rank=None if position is None else who[position].rank,
                last_share=share,
            )
        )
    return tuple(found)


_TOTALS = ("count", "total_bytes", "ended", "duration_ns", "waits", "blocked_ns")


def _steps_of_lines(joined: JoinedSums, steps: Ints, size: int) -> Floats:
    """Steps of the ranks that have a line, added up over them, shape (lines,)."""
    keys = joined.line * (int(joined.position.max(initial=0)) + 1) + joined.position
    _, first = np.unique(keys, return_index=True)
    return sums(steps[first], joined.line[first], size)


def _share(key: Key, compared: float, count: float) -> float | None:
    return round(float(compared / count), 4) if key.op in EVERYONE and count else None


def _bytes(key: Key) -> int | None:
    if key.op not in OPS or min(key.in_bytes, key.out_bytes) < 0:
        return None
    size = message_bytes(key.op, key.in_bytes, key.out_bytes, len(key.members) or MISSING)
    return size if size != MISSING else None


def _last(joined: JoinedSums, size: int) -> list[tuple[int | None, float | None]]:
    """The position of the member that is last most often in each line as a rank, and in what share of its stretches."""
    found: list[tuple[int | None, float | None]] = [(None, None)] * size
    rows = np.flatnonzero(joined.last)
    keys, counts = np.unique(joined.line[rows] * _MANY + joined.position[rows], return_counts=True)
    starts = np.flatnonzero(joined.compared)
    new = np.unique(joined.line[starts] * _MANY + joined.from_step[starts])
    stretches = np.bincount(new // _MANY, minlength=size)
    for key, count in sorted(zip(keys.tolist(), counts.tolist(), strict=True), key=lambda each: each[1]):
        line, position = divmod(key, _MANY)
        found[line] = position, round(count / int(stretches[line]), 4)
    return found


_MANY = 1 << 32


def _line_bins(each: Sequence[RankSums], joined: JoinedSums, size: int) -> NDArray[np.int64]:
    """Line, bin and count of all ranks, shape (n, 3)."""
    parts = [
        np.stack([places[one.bins[:, 0]], one.bins[:, 1], one.bins[:, 2]], axis=1)
        for one, places in zip(each, joined.of_kinds, strict=True)
    ]
    table = np.concatenate([np.zeros((0, 3), np.int64), *parts])
    widest = int(table[:, 1].max(initial=0)) + 1
    counts = np.bincount(table[:, 0] * widest + table[:, 1], weights=table[:, 2], minlength=size * widest)
    return counts.reshape(size, -1).astype(np.int64)


def _pooled(bins: Sequence[Ints]) -> NDArray[np.int64]:
    """Counts by bin of all ranks, shape (1, bins)."""
    table = np.concatenate([np.zeros((0, 2), np.int64), *bins])
    return np.bincount(table[:, 0], weights=table[:, 1], minlength=1).astype(np.int64)[None, :]


def _percentiles(counts: NDArray[np.int64], shares: Sequence[float]) -> list[Any]:
    """The middle of the bin in which each share of the durations is reached, ns, shape (lines,); NaN without any."""
    reached, whole = np.cumsum(counts, axis=1), counts.sum(axis=1)
    low, high = bin_bounds(np.arange(counts.shape[1]))
    middle = np.sqrt(low * high)
    places = [np.argmax(reached >= share * whole[:, None], axis=1) for share in shares]
    return [np.where(whole > 0, middle[place], np.nan) for place in places]


def _ms(ns: Any) -> float | None:
    value = float(np.asarray(ns).ravel()[0])
    return round(value * _MS, 6) if np.isfinite(value) else None


def _mean_ms(ns: float, count: float) -> float | None:
    return _ms(ns / count) if count else None
