"""Matching without sequence numbers: per operation, by order, counted from both ends of the trace."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from commlens.analyzers.columns import Columns
from commlens.analyzers.intervals import Ints, distinct
from commlens.trace.schema import MISSING

CLOCK_NOISE_NS: Final = 100_000  # profilers map device clocks to the host's no better than this
LIKE_ONE_NS: Final = 3 * CLOCK_NOISE_NS  # apart in time, the ends of a collective on ranks that share a clock
_TOGETHER = ("all_reduce", "all_gather", "reduce_scatter")
_OTHER_SIZE_NS = 1e12  # a match of different sizes is worse than any difference of times


def align(rows: Sequence[Ints], columns: Sequence[Columns]) -> tuple[Ints, float]:
    """Line up rows that carry no sequence number.

    Per operation, the member with the most rows is the measure. Another one's first rows are matched
    from the front and its last ones from the back; where the two meet is where sizes and times of the
    end agree best. So rows cut off at either end, or lost in one stretch between, stay unmatched.

    Args:
        rows: rows of each member by issue.
        columns: the columns they are rows of.

    Returns:
        Rows, shape (members, collectives), and the share of matches that agree with one another, 0..1: they
        were under way at the same time on all members (by the clocks as they are), and where devices timed an
        operation that all leave together, they did so.
    """
    words = sorted(
        {c.words["op"].words[code] for c, own in zip(columns, rows, strict=True) for code in _present(c, own)}
    )
    tables = []
    for word in words:
        own = [own[c.words["op"].equals(word)[own]] for c, own in zip(columns, rows, strict=True)]
        tables.append(_align_one([_Line(c, each) for c, each in zip(columns, own, strict=True)]))
    table = np.concatenate(tables, axis=1) if tables else np.zeros((len(rows), 0), np.int64)
    table = table[:, np.argsort(_time(table, columns), kind="stable")]
    return table, _confidence(table, columns)


def _present(columns: Columns, rows: Ints) -> Ints:
    codes = columns.words["op"].codes[rows]
    return distinct(codes[codes != MISSING])


class _Line:
    """The rows of one operation on one member, with what tells them apart."""

    def __init__(self, columns: Columns, rows: Ints) -> None:
        self.rows = rows
        self.bytes = columns.collectives["bytes"][rows]
        ends = columns.collectives["completed_ns"][rows]
        self.ends = np.where(ends == MISSING, columns.collectives["issued_ns"][rows], ends)


def _align_one(lines: Sequence[_Line]) -> Ints:
    measure = max(lines, key=lambda line: line.rows.size)
    table = np.full((len(lines), measure.rows.size), MISSING, np.int64)
    for target, line in zip(table, lines, strict=True):
        if line.rows.size:
            target[_places(measure, line)] = line.rows
    return table


def _places(measure: _Line, line: _Line) -> NDArray[np.intp]:
    """Where in the measure each row belongs: the first `cut` rows from the front, the rest from the back."""
    count, spare = line.rows.size, measure.rows.size - line.rows.size
    front = np.arange(count)
    if spare:
        costs = [_cost(measure, line, front + shift) for shift in (0, spare)]
        total = np.concatenate([[0], np.cumsum(costs[0])]) + np.concatenate([np.cumsum(costs[1][::-1])[::-1], [0]])
        cut = int(np.argmin(total))
        front[cut:] += spare
    return front


def _cost(measure: _Line, line: _Line, places: NDArray[np.intp]) -> NDArray[np.float64]:
    apart = np.abs(measure.ends[places] - line.ends).astype(np.float64)
    cost: NDArray[np.float64] = apart + np.where(measure.bytes[places] == line.bytes, 0, _OTHER_SIZE_NS)
    return cost


def _time(table: Ints, columns: Sequence[Columns]) -> Ints:
    """Latest issue of each collective, which orders them."""
    latest = np.full(table.shape[1], MISSING, np.int64)
    for line, c in zip(table, columns, strict=True):
        latest = np.maximum(latest, np.where(line == MISSING, MISSING, c.collectives["issued_ns"][line]))
    return latest


def _confidence(table: Ints, columns: Sequence[Columns]) -> float:
    several = (table != MISSING).sum(axis=0) > 1
    if not several.any():
        return 0.0
    begin, last = (np.full(table.shape[1], MISSING, np.int64) for _ in range(2))
    end, together = np.full(table.shape[1], np.iinfo(np.int64).max), np.ones(table.shape[1], bool)
    for line, c in zip(table, columns, strict=True):
        seen, rows = line != MISSING, c.collectives
        started, ended = rows["started_ns"][line], rows["completed_ns"][line]
        begin = np.where(seen, np.maximum(begin, started), begin)
        end = np.where(seen & (ended != MISSING), np.minimum(end, ended), end)
        last = np.where(seen, np.maximum(last, ended), last)
        together &= ~seen | (_left_together(c)[line] & (ended != MISSING))
    agrees = (begin - CLOCK_NOISE_NS <= end) & (~together | (last - end <= LIKE_ONE_NS))
    return float(agrees[several].mean())


def _left_together(columns: Columns) -> NDArray[np.bool_]:
    """Rows of operations that all ranks leave at the same time, timed by a device, shape (rows,)."""
    op = columns.words["op"]
    codes = [code for code, word in enumerate(op.words) if word in _TOGETHER]
    return np.asarray(np.isin(op.codes, codes) & columns.words["timing"].equals("device"))
