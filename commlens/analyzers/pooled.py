"""The collective rows of all ranks by (group, operation, size), one column at a time so that memory stays small."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from commlens.analyzers.columns import Columns
from commlens.analyzers.grouped import Floats, by_key, medians, percentiles, sums
from commlens.analyzers.intervals import Ints, distinct
from commlens.analyzers.ranks import RankFacts
from commlens.trace.schema import MISSING


@dataclass(frozen=True)
class Like:
    """Rows that share a line: the same group, operation and message size.

    Attributes:
        group: torch's name.
        op: torch's spelling, "" where not known.
        bytes: message size, MISSING where not known; the median where `uneven`.
        uneven: an all_to_all whose ranks send different sizes.
    """

    group: str
    op: str
    bytes: int
    uneven: bool


class Pool:
    """Rows of analysed steps (all rows where no rank of the run has steps) of some ranks, of all groups or of one.

    Attributes:
        ranks: whose they are.
        likes: the distinct kinds of rows.
        chosen: rows of each rank that count.
        keys: for each of those its kind, a position in `likes`.
    """

    def __init__(self, ranks: Sequence[RankFacts], group: str | None = None, any_steps: bool | None = None) -> None:
        self.ranks = ranks
        if any_steps is None:
            any_steps = any(facts.steps.index.size for facts in ranks)
        self.chosen = [_of_group(facts, _counted(facts, any_steps), group) for facts in ranks]
        uneven = _uneven(ranks, self.chosen)
        places: dict[Like, int] = {}
        self.keys = [_keys(facts.columns, rows, uneven, places) for facts, rows in zip(ranks, self.chosen, strict=True)]
        self.likes = list(places)

    @property
    def count(self) -> int:
        """Kinds of rows."""
        return len(self.likes)

    @cached_property
    def counts(self) -> Ints:
        """Rows of each kind."""
        return np.bincount(np.concatenate([np.zeros(0, np.int64), *self.keys]), minlength=self.count)

    @cached_property
    def first(self) -> list[tuple[int, int]]:
        """The first row of each kind: position of its rank, and row."""
        found: dict[int, tuple[int, int]] = {}
        for position, (rows, keys) in enumerate(zip(self.chosen, self.keys, strict=True)):
            kinds, places = np.unique(keys, return_index=True)
            for kind, place in zip(kinds.tolist(), places.tolist(), strict=True):
                found.setdefault(kind, (position, int(rows[place])))
        return [found[kind] for kind in range(self.count)]

    @cached_property
    def _order(self) -> tuple[Ints, Ints]:
        return by_key(np.concatenate(self.keys) if self.keys else np.zeros(0, np.int64), self.count)

    def percentiles(self, column: Callable[[int], Ints], *shares: float) -> list[Floats]:
        """Percentiles of each kind; NaN where it has none.

        Args:
            column: of the rank at a position, its values, shape (rows,); MISSING is left out.
            shares: which, 0..1.
        """
        values = [column(position)[rows] for position, rows in enumerate(self.chosen)]
        joined = np.concatenate(values) if values else np.zeros(0, np.int64)
        return percentiles(joined, self._order, *shares)

    def sums(self, column: Callable[[int], Ints]) -> Floats:
        """Sum of each kind's values, MISSING left out."""
        total = np.zeros(self.count)
        for position, (rows, keys) in enumerate(zip(self.chosen, self.keys, strict=True)):
            values = column(position)[rows]
            total += sums(np.where(values == MISSING, 0, values), keys, self.count)
        return total

    def steps(self, position: int) -> Ints:
        """Place among the rank's analysed steps in which each chosen row was issued; the first for earlier ones."""
        return step_of(self.ranks[position], self.chosen[position])

    def sums_by_step(self, position: int, values: Ints) -> Floats:
        """Sum of each kind in each analysed step of one rank, shape (kinds, steps).

        Args:
            position: of the rank.
            values: of all its rows.
        """
        steps = self.ranks[position].steps.index.size
        keys = self.keys[position] * steps + self.steps(position)
        return sums(values[self.chosen[position]], keys, self.count * steps).reshape(self.count, steps)

    def medians_by_step(self, position: int, values: Ints) -> Floats:
        """Median likewise, MISSING left out; NaN where there is none."""
        steps = self.ranks[position].steps.index.size
        keys, own = self.keys[position] * steps + self.steps(position), values[self.chosen[position]]
        keys, own = keys[own != MISSING], own[own != MISSING]
        return medians(own, keys, self.count * steps).reshape(self.count, steps)

    def known(self, column: Callable[[int], Ints]) -> Ints:
        """How many values of each kind are known."""
        return np.asarray(self.sums(lambda position: (column(position) != MISSING).astype(np.int64)), np.int64)

    def word(self, name: str) -> list[str]:
        """The word of each kind in a column, "mixed" where it has several, "" where it has none."""
        found: list[set[str]] = [set() for _ in range(self.count)]
        for facts, rows, keys in zip(self.ranks, self.chosen, self.keys, strict=True):
            column = facts.columns.words[name]
            pairs = distinct(keys * (len(column.words) + 1) + column.codes[rows] + 1)
            for kind, code in zip(*(each.tolist() for each in np.divmod(pairs, len(column.words) + 1)), strict=True):
                found[kind].add(column.words[code - 1] if code else "")
        return ["mixed" if len(words) > 1 else next(iter(words), "") for words in found]


def step_of(facts: RankFacts, rows: NDArray[np.intp]) -> Ints:
    """Place among the rank's analysed steps in which each row was issued; the first for earlier ones."""
    issued = facts.columns.collectives["issued_ns"][rows]
    return np.maximum(np.searchsorted(facts.steps.start_ns, issued, side="right") - 1, 0)


def _counted(facts: RankFacts, any_steps: bool) -> NDArray[np.intp]:
    if not any_steps:
        return np.arange(facts.analysed.size)
    return np.flatnonzero((facts.analysed + facts.exposed_ns) > 0)


def _of_group(facts: RankFacts, rows: NDArray[np.intp], group: str | None) -> NDArray[np.intp]:
    if group is None:
        return rows
    own = facts.columns.words["group"]
    codes = [code for code, word in enumerate(own.words) if word == group] + ([MISSING] if group == "" else [])
    return rows[np.isin(own.codes[rows], codes)]


def _keys(
    columns: Columns, rows: NDArray[np.intp], uneven: dict[str, int], places: dict[Like, int]
) -> NDArray[np.int64]:
    """The kind of each row; new kinds are given the next places."""
    group, op = (columns.words[name] for name in ("group", "op"))
    size = columns.collectives["bytes"][rows]
    exchange = op.equals("all_to_all")[rows]
    for name, median in uneven.items():
        size = np.where(exchange & group.equals(name)[rows], median, size)
    kinds = (group.codes[rows] + 1) * (len(op.words) + 1) + op.codes[rows] + 1
    width = (len(group.words) + 1) * (len(op.words) + 1)
    distinct, inverse = np.unique((size + 1) * width + kinds, return_inverse=True)
    table = np.zeros(distinct.size, np.int64)
    for place, value in enumerate(distinct.tolist()):
        own_size, kind = divmod(value, width)
        group_code, op_code = divmod(kind, len(op.words) + 1)
        name = group.words[group_code - 1] if group_code else ""
        word = op.words[op_code - 1] if op_code else ""
        like = Like(name, word, own_size - 1, word == "all_to_all" and name in uneven)
        table[place] = places.setdefault(like, len(places))
    return table[inverse.reshape(-1)]


def _uneven(ranks: Sequence[RankFacts], chosen: Sequence[NDArray[np.intp]]) -> dict[str, int]:
    """Groups whose all_to_alls send different sizes, and their median message size."""
    parts: dict[str, list[Ints]] = {}
    for facts, rows in zip(ranks, chosen, strict=True):
        columns, group = facts.columns, facts.columns.words["group"]
        own = rows[columns.words["op"].equals("all_to_all")[rows]]
        for code in distinct(group.codes[own]).tolist():
            these = own[group.codes[own] == code]
            table = np.array([columns.collectives[name][these] for name in ("seq", "in_bytes", "out_bytes", "bytes")])
            parts.setdefault(group.words[code] if code != MISSING else "", []).append(table)
    joined = {name: np.concatenate(tables, axis=1) for name, tables in parts.items()}
    return {name: int(np.median(table[3])) for name, table in joined.items() if _differ(*table[:3])}


def _differ(seq: Ints, in_bytes: Ints, out_bytes: Ints) -> bool:
    """Whether any collective's ranks send different sizes, or one rank sends other than it gets."""
    order = np.argsort(seq, kind="stable")
    same = np.diff(seq[order]) == 0
    return bool(np.any(in_bytes != out_bytes) or np.any(np.diff(in_bytes[order])[same]))
