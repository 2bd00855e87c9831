"""How much of each kind of collective is hidden, by group, operation and gradient bucket."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from commlens.analyzers.across.exposed import Exposed
from commlens.analyzers.across.joined import Joined
from commlens.analyzers.budget import overlap
from commlens.analyzers.grouped import Floats
from commlens.analyzers.held import each
from commlens.analyzers.intervals import Ints, length_within, subtract
from commlens.analyzers.ranks import RankFacts
from commlens.trace.schema import MISSING


@dataclass(frozen=True)
class OverlapLine:
    """The collectives of one group and operation, of one gradient bucket where they are buckets, ms per step.

    Means over steps and over the ranks that take part and have a budget. `hidden_ms_per_step` adds up the time in
    which each collective was in flight and the rank did not stand still: two that fly together count twice.

    Attributes:
        group: torch's name of the process group.
        op: torch's spelling.
        bucket: number of DDP's bucket, None where it is none.
        bytes: mean message size, nccl-tests' way; None where not known.
        count_per_step: of one rank.
        exposed_ms_per_step: standstill charged to them.
        exposed_wait_ms_per_step: the part that waited for late ranks; None where ranks are not joined.
        hidden_ms_per_step: see above.
        overlap: hidden / (hidden + exposed), 0..1.
    """

    group: str
    op: str
    bucket: int | None
    bytes: int | None
    count_per_step: float
    exposed_ms_per_step: float
    exposed_wait_ms_per_step: float | None
    hidden_ms_per_step: float
    overlap: float | None


_Key = tuple[str, str, int]
_SUMS = 5  # collectives, exposed, waited and hidden ns, bytes


def overlap_lines(ranks: Sequence[RankFacts], joined: Joined) -> tuple[OverlapLine, ...]:
    """Lines, the longest exposed first; none where no rank has a budget."""
    sums: defaultdict[_Key, Floats] = defaultdict(lambda: np.zeros(_SUMS))
    steps: defaultdict[_Key, int] = defaultdict(int)
    for facts, own in zip(ranks, each(_sums, ranks, joined.exposed), strict=True):
        for key, found in own:
            sums[key] += found
            steps[key] += facts.steps.index.size
    split = joined.clocks.refusal is None and len(ranks) > 1
    lines = [_line(key, sums[key], steps[key], split) for key in sums]
    return tuple(sorted(lines, key=lambda each: (-each.exposed_ms_per_step, each.group, each.op, each.bucket or 0)))


def _sums(facts: RankFacts, exposed: Exposed) -> list[tuple[_Key, Floats]]:
    return [] if facts.budget is None else list(_of_rank(facts, exposed.row_wait))


def _of_rank(facts: RankFacts, waited: Ints) -> Iterator[tuple[_Key, Floats]]:
    """Sums over the analysed steps of each key that occurs in them."""
    rows, (group, op) = facts.columns.collectives, (facts.columns.words[name] for name in ("group", "op"))
    # Codes are small and dense: packed they need no sorting.
    buckets = int(rows["bucket"].max(initial=0)) + 2
    keys = ((group.codes.astype(np.int64) + 1) * (len(op.words) + 1) + op.codes + 1) * buckets + rows["bucket"] + 1
    hidden, sizes = _hidden(facts), np.maximum(rows["bytes"], 0) * facts.analysed
    totals = [np.bincount(keys, weights=each) for each in (facts.analysed, facts.exposed_ns, waited, hidden, sizes)]
    for key in np.flatnonzero(totals[0]):
        pair, bucket = divmod(int(key), buckets)
        names = divmod(pair, len(op.words) + 1)
        words = [column.words[code - 1] if code else "" for column, code in zip((group, op), names, strict=True)]
        yield (words[0], words[1], bucket - 1), np.array([total[key] for total in totals])


def _hidden(facts: RankFacts) -> Ints:
    """In analysed steps, in flight and the rank not standing still, ns, shape (rows,)."""
    started, ended = (facts.columns.collectives[name] for name in ("started_ns", "completed_ns"))
    flew = (started != MISSING) & (ended > started)
    free = subtract(facts.steps.window, facts.blocked.merged)
    return np.where(flew, length_within(free, started, np.where(flew, ended, started)), 0)


def _line(key: _Key, totals: Floats, steps: int, split: bool) -> OverlapLine:
    group, op, bucket = key
    count, exposed, waited, hidden, size = (float(value) for value in totals)
    share = overlap(int(hidden), int(exposed))
    return OverlapLine(
        group=group,
        op=op,
        bucket=None if bucket == MISSING else bucket,
        bytes=int(size / count) if size else None,
        count_per_step=round(count / steps, 4),
        exposed_ms_per_step=round(exposed / steps / 1e6, 6),
        exposed_wait_ms_per_step=round(waited / steps / 1e6, 6) if split else None,
        hidden_ms_per_step=round(hidden / steps / 1e6, 6),
        overlap=None if share is None else round(share, 6),
    )
