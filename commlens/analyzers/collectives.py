"""The collectives of a run, one line per (group, operation, message size)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from commlens.analyzers.collective_line import CollectiveLine
from commlens.analyzers.grouped import Floats, group_keys, most_common, percentiles, sums
from commlens.analyzers.intervals import Ints
from commlens.analyzers.pooled import Pool, join_uneven, pool_rows
from commlens.analyzers.ranks import RankFacts
from commlens.trace.ops import busbw_factor
from commlens.trace.schema import MISSING

BASIS = "duration including wait"


def collective_lines(ranks: Sequence[RankFacts]) -> tuple[CollectiveLine, ...]:
    """Lines of the collectives table, the costliest first.

    Args:
        ranks: stage one of each rank, in any order.
    """
    ordered = sorted(ranks, key=lambda r: r.rank)
    pool, uneven = join_uneven(pool_rows(ordered))
    keys, first = group_keys([pool.columns[name] for name in ("group", "op", "bytes")])
    table = _Table(pool, uneven, keys, first, _per_step(ordered, pool, keys, first.size))
    lines = [_line(table, key) for key in range(first.size)]
    total = sums(np.maximum(pool.duration_ns, 0), keys, first.size)
    order = sorted(range(first.size), key=lambda k: (-(lines[k].exposed_ms_per_step or 0), -total[k], k))
    return tuple(lines[key] for key in order)


@dataclass(frozen=True)
class _PerStep:
    """Counts and standstill of each key, shape (keys,); NaN where there is no step to divide by."""

    rows: Floats
    exposed_ms: Floats


def _per_step(ranks: Sequence[RankFacts], pool: Pool, keys: Ints, count: int) -> _PerStep:
    rank, steps = pool.columns["rank"], np.array([r.steps.index.size for r in ranks], np.float64)
    pairs = np.unique(keys * max(len(ranks), 1) + rank)
    member_steps = sums(steps[pairs % max(len(ranks), 1)], pairs // max(len(ranks), 1), count)
    rows = sums(pool.columns["analysed"], keys, count)
    return _PerStep(
        np.divide(rows, member_steps, out=np.full(count, np.nan), where=member_steps > 0),
        _exposed_ms(ranks, pool, keys, count),
    )


def _exposed_ms(ranks: Sequence[RankFacts], pool: Pool, keys: Ints, count: int) -> Floats:
    """Standstill of each key a step, by the statistic of the time budget: median over steps, mean over ranks."""
    medians = []
    for position, facts in enumerate(ranks):
        if facts.budget is None:
            continue
        steps, own = facts.steps.index.size, pool.columns["rank"] == position
        cells = keys[own] * steps + pool.columns["step"][own]
        table = sums(pool.columns["exposed_ns"][own], cells, count * steps).reshape(count, steps)
        medians.append(np.median(table, axis=1))
    return np.mean(medians, axis=0) / 1e6 if medians else np.full(count, np.nan)


@dataclass(frozen=True)
class _Table:
    """What a line is made of: rows, their keys, and each key's statistics."""

    pool: Pool
    uneven: NDArray[np.bool_]
    keys: Ints
    first: Ints
    per_step: _PerStep

    def word(self, column: str, key: int) -> str:
        """The word in the first row of a key."""
        code = int(self.pool.columns[column][self.first[key]])
        return self.pool.words[column][code]

    def number(self, column: str, key: int) -> int | None:
        """The number in the first row of a key, None where not known."""
        value = int(self.pool.columns[column][self.first[key]])
        return None if value == MISSING else value

    @cached_property
    def counts(self) -> Ints:
        """Rows of each key."""
        return np.bincount(self.keys, minlength=self.first.size)

    @cached_property
    def common(self) -> dict[str, list[str]]:
        """The most common word of each key, per column."""
        columns, words = self.pool.columns, self.pool.words
        return {
            name: most_common(columns[name], self.keys, self.first.size, words[name]) for name in ("dtype", "timing")
        }

    @cached_property
    def duration_ns(self) -> tuple[Floats, Floats]:
        """Median and 95th percentile of each key's durations, NaN where no end is known."""
        durations = self.pool.duration_ns
        known = durations != MISSING
        p50, p95 = (percentiles(durations[known], self.keys[known], self.first.size, q) for q in (0.5, 0.95))
        return p50, p95


def _line(table: _Table, key: int) -> CollectiveLine:
    p50, p95 = (float(values[key]) for values in table.duration_ns)
    size, members = table.number("bytes", key), table.number("group_size", key)
    vary = bool(table.uneven[table.first[key]])
    algbw, busbw = _bandwidth(table.word("op", key), None if vary else size, members, p50)
    return CollectiveLine(
        group=table.word("group", key),
        group_desc=table.word("group_desc", key),
        op=table.word("op", key),
        bytes=size,
        bytes_vary=vary,
        dtype=table.common["dtype"][key],
        group_size=members,
        count=int(table.counts[key]),
        count_per_step=_known(table.per_step.rows[key]),
        duration_ms_p50=_known(p50 / 1e6),
        duration_ms_p95=_known(p95 / 1e6),
        transfer_ms_p50=None,
        transfer_ms_p95=None,
        wait_ms_p50=None,
        wait_ms_p95=None,
        algbw_gb_s=algbw,
        busbw_gb_s=busbw,
        bandwidth_basis=BASIS if algbw is not None else None,
        regime=None,
        exposed_ms_per_step=_known(table.per_step.exposed_ms[key]),
        timing=table.common["timing"][key],
    )


def _bandwidth(op: str, size: int | None, members: int | None, ns: float) -> tuple[float | None, float | None]:
    """algbw and busbw in GB/s (bytes per ns), None where the size, end or factor is not known."""
    if not size or not members or not ns > 0:
        return None, None
    factor = busbw_factor(op, members)
    algbw = size / ns
    return _known(algbw), None if factor is None else _known(algbw * factor)


def _known(value: float) -> float | None:
    return None if np.isnan(value) else round(float(value), 6)
