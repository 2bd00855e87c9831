"""Sums of collectives and phases, which stay small however long a job runs: what is kept after COMMLENS_QUOTA.

Sums are of a *stretch* of steps and a *kind*: collectives of one group, operation, data type and size, or phases of one
name. Stretches have the same bounds on all ranks of all jobs, so that ranks can be set side by side; they grow with the
job. Rows of one stretch and kind add up: what is learnt of a collective later, such as its end, is written in a row of
its own.

    sums = Sums()
    sums.add_collectives(rows)
    for table, columns in sums.take(groups, offset_ns=0).items():
        writer.append(table, columns)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from commlens.trace.schema import DTYPES, MISSING, OPS, PHASES, STEP_MARK

Ints = NDArray[np.int64]

SHORTEST_STRETCH: Final = 16  # steps
WARM_UP: Final = 2  # steps, which are a stretch of their own: they allocate, compile and open connections
_AN_OCTAVE: Final = 8  # stretches while the number of steps doubles
BINS_AN_OCTAVE: Final = 4
MOST_KINDS: Final = 512  # that keep their sizes; those of further ones are not told apart
WORDS: Final = (*PHASES, STEP_MARK)

_KEY: Final = ("from_step", "phase", "group", "op", "dtype", "in_bytes", "out_bytes", "peer")
_ADDED: Final = (
    *("count", "total_bytes", "ended", "bounds", "duration_ns", "started", "executed_ns", "waits", "blocked_ns"),
)
_LEAST: Final = ("shortest_ns", "first_seq", "first_ns")
_MOST: Final = ("longest_ns", "last_seq", "last_ns")
_NEVER: Final = np.iinfo(np.int64).max
_PLAIN, _LOW = len(_ADDED), len(_LEAST)


def stretch_of(steps: NDArray[np.integer[Any]]) -> tuple[Ints, Ints]:
    """First step of each step's stretch, and the step after its last; of `steps`' shape.

    The first two steps, then up to step 16, then 16 steps each up to step 256, then an eighth of the power of two at
    or below the step: 32 from 256 on, 64 from 512 on, ... A job of 10 million steps has some 140 of them. A step that
    is not known counts as 0.
    """
    known = np.maximum(np.asarray(steps, np.int64), 0)
    power = np.frexp(np.maximum(known, 1))[1].astype(np.int64) - 1
    size = np.maximum(np.left_shift(np.int64(1), power) // _AN_OCTAVE, SHORTEST_STRETCH)
    first, end = known - known % size, known - known % size + size
    early = known < WARM_UP
    return np.where(early, 0, np.maximum(first, WARM_UP)), np.where(early, WARM_UP, end)


@cache
def stretch_bounds() -> Ints:
    """First steps of all stretches there can be, ascending: steps have 31 bits."""
    bounds = [0]
    while bounds[-1] < 2**31:
        bounds.append(int(stretch_of(np.array(bounds[-1:]))[1][0]))
    return np.array(bounds, np.int64)


def bin_of(durations_ns: NDArray[np.integer[Any]]) -> Ints:
    """The bin of each duration: bin b holds those from 2^(b/4) up to, not including, 2^((b+1)/4) ns; 0 what is less."""
    bins: Ints = np.floor(BINS_AN_OCTAVE * np.log2(np.maximum(durations_ns, 1))).astype(np.int64)
    return bins


def bin_bounds(bins: NDArray[np.integer[Any]]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Lower and upper bound of each bin, ns."""
    return 2.0 ** (bins / BINS_AN_OCTAVE), 2.0 ** ((bins + 1) / BINS_AN_OCTAVE)


class Sums:
    """Adds up; memory is bounded by the number of kinds, not by the length of the job. One thread at a time."""

    def __init__(self) -> None:
        self._rows: dict[tuple[int, ...], Ints] = {}
        self._bins: dict[tuple[int, int, int], int] = {}  # count by (from_step, kind, bin)
        self._kinds: dict[tuple[int, ...], int] = {}

    def __len__(self) -> int:
        """Rows that are not taken yet."""
        return len(self._rows)

    def add_collectives(
        self,
        columns: Mapping[str, NDArray[Any]],
        issued: NDArray[np.bool_] | None = None,
        ended: NDArray[np.bool_] | None = None,
        waited: NDArray[np.bool_] | None = None,
        bounds: NDArray[np.bool_] | None = None,
    ) -> None:
        """Adds what was learnt of collectives.

        Args:
            columns: integers of shape (rows,): group (code), op and dtype (codes of `schema.OPS` and `schema.DTYPES`),
                seq, in_bytes, out_bytes, peer, step, issued_ns, started_ns, completed_ns, waited_ns, blocked_ns;
                `MISSING` where not known. A structured array of `slots.ROW` is such a mapping.
            issued: rows whose issue is new, all when not given.
            ended: rows whose end is new; all that have one when not given.
            waited: rows whose wait is new; likewise.
            bounds: rows whose end is known by a wait alone: that or earlier; none when not given.
        """
        count = len(columns["op"])
        if not count:
            return
        none = np.zeros(count, bool)
        issued = ~none if issued is None else issued
        ended = columns["completed_ns"] >= 0 if ended is None else ended
        waited = columns["waited_ns"] >= 0 if waited is None else waited
        bounds = none if bounds is None else bounds
        message = np.isin(columns["op"], (OPS.index("send"), OPS.index("recv")))
        keys = np.empty((count, len(_KEY)), np.int64)
        keys[:, 0] = stretch_of(columns["step"])[0]
        keys[:, 1] = MISSING
        for place, name in enumerate(_KEY[2:-1], 2):
            keys[:, place] = columns[name]
        keys[:, -1] = np.where(message, columns["peer"], MISSING)
        begun, end = columns["issued_ns"].astype(np.int64), columns["completed_ns"].astype(np.int64)
        started = ended & (columns["started_ns"] >= 0)
        durations = np.where(ended, np.maximum(end - begun, 0), 0)
        executed = np.where(started, np.maximum(end - columns["started_ns"], 0), 0)
        numbered = columns["seq"] >= 0
        added = (
            issued,
            np.where(issued, np.maximum(np.maximum(columns["in_bytes"], columns["out_bytes"]), 0), 0),
            *(ended, ended & bounds, durations, started, executed),
            *(waited, np.where(waited, np.maximum(columns["blocked_ns"], 0), 0)),
        )
        least = (np.where(ended, durations, _NEVER), np.where(numbered, columns["seq"], _NEVER), begun)
        most = (np.where(ended, durations, MISSING), columns["seq"], begun)
        self._add(keys, (*added, *least, *most), ended, durations)

    def add_phases(self, phases: Ints, starts: Ints, ends: Ints, steps: Ints) -> None:
        """Adds finished phases, as codes of `WORDS`; times in ns, all of shape (rows,)."""
        count = len(phases)
        if not count:
            return
        keys = np.full((count, len(_KEY)), MISSING, np.int64)
        keys[:, 0], keys[:, 1] = stretch_of(steps)[0], phases
        lasted, ones, none = np.maximum(ends - starts, 0), np.ones(count, np.int64), np.zeros(count, np.int64)
        added = (ones, none, ones, none, lasted, none, none, none, none)
        values = (*added, lasted, np.full(count, _NEVER), starts, lasted, np.full(count, MISSING), starts)
        self._add(keys, values, ones > 0, lasted)

    def _add(self, keys: Ints, values: Sequence[Any], ended: NDArray[np.bool_], durations: Ints) -> None:
        distinct, place = _distinct(keys)
        order = np.argsort(place, kind="stable")
        first = np.searchsorted(place[order], np.arange(len(distinct)))
        table = np.stack([np.asarray(each, np.int64)[order] for each in values])
        parts = [
            np.add.reduceat(table[:_PLAIN], first, axis=1),
            np.minimum.reduceat(table[_PLAIN : _PLAIN + _LOW], first, axis=1),
            np.maximum.reduceat(table[_PLAIN + _LOW :], first, axis=1),
        ]
        kinds = np.empty(len(distinct), np.int64)
        for number, (key, row) in enumerate(zip(distinct.tolist(), np.concatenate(parts).T, strict=True)):
            kept = self._kept(key)
            kinds[number] = self._kinds[kept[1:]]
            held = self._rows.get(kept)
            self._rows[kept] = row.copy() if held is None else _joined(held, row)
        self._count(distinct[place[ended], 0], kinds[place[ended]], bin_of(durations[ended]))

    def _kept(self, key: list[int]) -> tuple[int, ...]:
        """The key, without its sizes where there are too many kinds already."""
        kept = tuple(key)
        if kept[1:] not in self._kinds:
            if len(self._kinds) >= MOST_KINDS:
                kept = (*kept[:5], MISSING, MISSING, kept[7])
            self._kinds.setdefault(kept[1:], len(self._kinds))
        return kept

    def _count(self, from_step: Ints, kinds: Ints, bins: Ints) -> None:
        distinct, place = _distinct(np.stack([from_step, kinds, bins], axis=1))
        for key, count in zip(distinct.tolist(), np.bincount(place).tolist(), strict=True):
            at = (key[0], key[1], key[2])
            self._bins[at] = self._bins.get(at, 0) + count

    def take(self, groups: Sequence[str], offset_ns: int) -> dict[str, dict[str, Any]]:
        """What was added since the last call, as columns for `RankWriter.append`, by table; {} where nothing was.

        Args:
            groups: names of the groups, by their codes.
            offset_ns: is added to times.
        """
        if not self._rows:
            return {}
        rows, bins = dict(sorted(self._rows.items())), dict(sorted(self._bins.items()))
        self._rows, self._bins = {}, {}
        keys = dict(zip(_KEY, np.array(list(rows)).T, strict=True))
        values = dict(zip((*_ADDED, *_LEAST, *_MOST), np.array(list(rows.values())).T, strict=True))
        for name in ("first_ns", "last_ns"):
            values[name] = values[name] + offset_ns
        for name in ("shortest_ns", "first_seq"):
            values[name] = np.where(values[name] == _NEVER, MISSING, values[name])
        words = {"phase": list(WORDS), "group": list(groups), "op": list(OPS), "dtype": list(DTYPES)}
        table: dict[str, Any] = {name: (keys[name], words[name]) if name in words else keys[name] for name in keys}
        table |= {"to_step": stretch_of(keys["from_step"])[1], **values}
        table["kind"] = np.array([self._kinds[key[1:]] for key in rows])
        found = {"aggregates": table}
        if bins:
            places = np.array(list(bins)).T
            counts = np.array(list(bins.values()))
            found["aggregate_bins"] = dict(zip(("from_step", "kind", "bin", "count"), (*places, counts), strict=True))
        return found


def aggregated(collectives: Mapping[str, Any], phases: Mapping[str, Any] | None = None) -> dict[str, dict[str, Any]]:
    """The aggregates of whole rows: what a rank would have kept of them with COMMLENS_QUOTA=0.

    For simulated runs. `rank.json` needs `"aggregates": {"quota_bytes": 0, "from_step": 0}` beside them.

        for table, columns in aggregated(collectives, phases).items():
            writer.append(table, columns)

    Args:
        collectives: columns as for `RankWriter.append("collectives", ...)`, those that `Sums.add_collectives` names.
        phases: columns as for `RankWriter.append("phases", ...)`; steps are from one end of an optimizer to the next.

    Raises:
        ValueError: an operation, a data type or a phase is not one of the schema.
    """
    sums = Sums()
    rows = {name: values for name, values in collectives.items() if not isinstance(values, tuple)}
    rows["group"], groups = collectives["group"]
    for name, words in (("op", OPS), ("dtype", DTYPES)):
        rows[name] = _recoded(collectives[name], words)
    for name in ("started_ns", "waited_ns", "blocked_ns", "peer"):
        rows.setdefault(name, np.full(len(rows["op"]), MISSING))
    sums.add_collectives(rows)
    if phases is not None:
        phase, (starts, ends, steps) = (
            _recoded(phases["phase"], WORDS),
            (phases[n] for n in ("start_ns", "end_ns", "step")),
        )
        sums.add_phases(phase, starts, ends, steps)
        last = np.sort(np.asarray(ends)[phase == PHASES.index("optimizer")])
        numbers = np.sort(np.asarray(steps)[phase == PHASES.index("optimizer")])
        sums.add_phases(np.full(max(last.size - 1, 0), WORDS.index(STEP_MARK)), last[:-1], last[1:], numbers[1:])
    return sums.take(list(groups), 0)


def _recoded(column: tuple[NDArray[Any], Sequence[str]], words: Sequence[str]) -> Ints:
    """Codes of a names column as places in `words`."""
    places = np.array([*(list(words).index(word) for word in column[1]), MISSING], np.int64)
    return np.asarray(places[column[0]])


def _joined(first: Ints, second: Ints) -> Ints:
    low, high = slice(_PLAIN, _PLAIN + _LOW), slice(_PLAIN + _LOW, None)
    return np.concatenate(
        [
            first[:_PLAIN] + second[:_PLAIN],
            np.minimum(first[low], second[low]),
            np.maximum(first[high], second[high]),
        ]
    )


def _distinct(keys: Ints) -> tuple[Ints, NDArray[np.intp]]:
    """Distinct rows, and for each row its place among them; by a hash, which is checked."""
    factors = np.array([0x9E3779B97F4A7C15 * (2 * n + 1) & 0x7FFFFFFFFFFFFFFF for n in range(keys.shape[1])], np.int64)
    with np.errstate(over="ignore"):
        mixed = (keys * factors) ^ ((keys + 1) * factors >> 29)
        _, first, place = np.unique(mixed.sum(axis=1), return_index=True, return_inverse=True)
    distinct = keys[first]
    if (distinct[place] != keys).any():
        distinct, place = np.unique(keys, axis=0, return_inverse=True)
    return distinct, place.ravel()
