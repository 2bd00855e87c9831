"""The collective rows of all ranks in one table, with the words of all ranks in one vocabulary."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from commlens.analyzers.intervals import Ints
from commlens.analyzers.ranks import RankFacts
from commlens.trace.schema import MISSING

_NUMBERS = ("seq", "in_bytes", "out_bytes", "bytes", "group_size", "started_ns", "completed_ns")
_WORDS = ("group", "group_desc", "op", "dtype", "timing")


@dataclass(frozen=True)
class Pool:
    """Rows of all ranks, int64 columns of shape (rows,).

    Attributes:
        columns: the numbers, the codes of the words, "rank" (position), "step" (position among the rank's
            analysed steps), "exposed_ns", "analysed".
        words: what the codes of a column stand for; the last code stands for "not known".
    """

    columns: dict[str, Ints]
    words: dict[str, list[str]]

    def only(self, rows: NDArray[np.bool_]) -> Pool:
        """The rows chosen."""
        return Pool({name: values[rows] for name, values in self.columns.items()}, self.words)

    @property
    def duration_ns(self) -> Ints:
        """Started to completed, MISSING where either is not known."""
        started, completed = self.columns["started_ns"], self.columns["completed_ns"]
        known = (started != MISSING) & (completed >= started)
        return np.where(known, completed - started, MISSING)


def pool_rows(ranks: Sequence[RankFacts]) -> Pool:
    """The rows of analysed steps; all rows where no rank has steps."""
    words = {name: _vocabulary(ranks, name) for name in _WORDS}
    columns = {name: _joined([r.columns.collectives[name] for r in ranks]) for name in _NUMBERS}
    columns |= {name: _joined([_codes(r, name, words[name]) for r in ranks]) for name in _WORDS}
    columns["rank"] = np.repeat(np.arange(len(ranks)), [r.analysed.size for r in ranks])
    columns["step"] = _joined([_steps(r) for r in ranks])
    columns["exposed_ns"] = _joined([r.exposed_ns for r in ranks])
    columns["analysed"] = _joined([r.analysed for r in ranks])
    pool = Pool(columns, words)
    counted = (columns["analysed"] + columns["exposed_ns"]) > 0
    return pool.only(counted) if any(r.steps.index.size for r in ranks) else pool


def join_uneven(pool: Pool) -> tuple[Pool, NDArray[np.bool_]]:
    """Give each (group, all_to_all) whose sizes differ one size, the median.

    Returns:
        The pool, and which rows belong to such a group, shape (rows,).
    """
    rows = pool.columns
    exchange = np.flatnonzero(rows["op"] == _code(pool.words["op"], "all_to_all"))
    uneven = np.zeros(rows["op"].size, bool)
    sizes = rows["bytes"].copy()
    for group in np.unique(rows["group"][exchange]):
        own = exchange[rows["group"][exchange] == group]
        if _differ(rows["seq"][own], rows["in_bytes"][own], rows["out_bytes"][own]):
            uneven[own], sizes[own] = True, int(np.median(sizes[own]))
    return Pool({**rows, "bytes": sizes}, pool.words), uneven


def _differ(seq: Ints, in_bytes: Ints, out_bytes: Ints) -> bool:
    """Whether any collective's ranks send different sizes, or one rank sends other than it gets."""
    order = np.argsort(seq, kind="stable")
    same = np.diff(seq[order]) == 0
    return bool(np.any(in_bytes != out_bytes) or np.any(np.diff(in_bytes[order])[same]))


def _steps(rank: RankFacts) -> Ints:
    issued = rank.columns.collectives["issued_ns"]
    return np.maximum(np.searchsorted(rank.steps.start_ns, issued, side="right") - 1, 0).astype(np.int64)


def _vocabulary(ranks: Sequence[RankFacts], column: str) -> list[str]:
    words = {word for rank in ranks for word in rank.columns.words[column].words}
    return [*sorted(words), ""]


def _codes(rank: RankFacts, column: str, vocabulary: list[str]) -> Ints:
    """Codes in the common vocabulary of one rank's column."""
    own = rank.columns.words[column]
    place = {word: code for code, word in enumerate(vocabulary[:-1])}
    table = np.array([*(place[word] for word in own.words), len(vocabulary) - 1], np.int64)
    return table[own.codes]  # MISSING is -1: the last entry


def _code(vocabulary: list[str], word: str) -> int:
    return vocabulary.index(word) if word in vocabulary else MISSING


def _joined(parts: list[Ints]) -> Ints:
    return np.concatenate([np.zeros(0, np.int64), *parts])
