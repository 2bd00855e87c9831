"""Stage one of aggregates: the sums of one rank, rows of the same stretch and kind added up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from commlens.analyzers.grouped import group_keys
from commlens.analyzers.intervals import Ints
from commlens.analyzers.rank_info import entries
from commlens.trace.aggregates import WARM_UP, stretch_bounds
from commlens.trace.schema import MISSING, POINT_TO_POINT, STEP_MARK

if TYPE_CHECKING:
    from commlens.trace import Rank

_ADDED: Final = (
    *("count", "total_bytes", "ended", "bounds", "duration_ns", "started", "executed_ns", "waits", "blocked_ns"),
)
_LEAST: Final = ("shortest_ns", "first_seq", "first_ns")
_MOST: Final = ("longest_ns", "last_seq", "last_ns")
_NAMES: Final = ("phase", "group", "op", "dtype")
_OWN: Final = ("from_step", "to_step", "kind", "in_bytes", "out_bytes", "peer")
NUMBERS: Final = (*_ADDED, *_LEAST, *_MOST)
_NEVER: Final = np.iinfo(np.int64).max
_MOST_BIN: Final = 252  # of 2^63 ns
_EXACT: Final = 2**53  # what is more is no sum of a recording
_MOST_STRETCHES: Final = 32  # of a rank, so that thousands of ranks fit; neighbours are put together


class Kind(NamedTuple):
    """Collectives that are summed together; a size that is not one is MISSING, `peer` is of messages only."""

    group: str
    op: str
    dtype: str
    in_bytes: int
    out_bytes: int
    peer: int


@dataclass(frozen=True)
class RankSums:
    """What one rank's aggregates tell.

    Attributes:
        from_step: the first step of which there are only sums, None where that is not told.
        kinds: of collectives.
        from_steps: first step of each row's stretch, shape (rows,), ascending.
        to_steps: the step after its last one, likewise.
        kind: place in `kinds` of each row, likewise.
        numbers: `NUMBERS` of each row, shape (rows, 15); MISSING where a shortest, longest, first or last is not known.
        bins: kind, bin and count of the durations, the warm-up left out where anything came after it, shape (n, 3).
        step_bins: bin and count of the lengths of steps, the warm-up left out, shape (n, 2).
        steps: whole steps, the warm-up left out: how many, and the sum of their lengths in ns.
        dropped: rows that make no sense.
        descriptions: of the groups, by name.
    """

    from_step: int | None
    kinds: tuple[Kind, ...]
    from_steps: Ints
    to_steps: Ints
    kind: Ints
    numbers: Ints
    bins: Ints
    step_bins: Ints
    steps: tuple[int, int]
    dropped: int
    descriptions: Mapping[str, str]


def read_sums(rank: Rank) -> RankSums | None:
    """The aggregates of a rank; None where it kept none.

    Raises:
        TraceError: a file may not be read.
    """
    told = rank.info.get("aggregates")
    if not isinstance(told, dict):
        return None
    from_step = told.get("from_step")
    columns = rank.columns("aggregates", (*_NAMES, *_OWN, *NUMBERS))  # at once: of a pack it is one read
    words = {name: rank.vocabulary("aggregates", name) for name in _NAMES}
    sound = _sound(columns)
    if from_step is None and not sound.size:
        return None
    rows = {name: values[sound].astype(np.int64) for name, values in columns.items()}
    _coarsen(rows)
    bins = _bins(rank)
    after = bins[bins[:, 0] >= WARM_UP]
    steps = _of_phase(rows, words["phase"], STEP_MARK)
    late = steps[rows["from_step"][steps] >= WARM_UP]
    own = np.flatnonzero(rows["phase"] == MISSING)
    collectives = {name: values[own] for name, values in rows.items()}
    numbers, first, keys = _added_up(collectives)
    ids, kind = np.unique(keys[1], return_inverse=True)
    warm = bool((keys[0] >= WARM_UP).any())  # never where steps are not known
    _, example = np.unique(collectives["kind"], return_index=True)
    return RankSums(
        from_step=from_step if isinstance(from_step, int) else None,
        kinds=tuple(_kind(collectives, words, int(row)) for row in example),
        from_steps=keys[0],
        to_steps=collectives["to_step"][first],
        kind=kind.astype(np.int64),
        numbers=numbers,
        bins=_of_kinds(after if warm else bins, ids),
        step_bins=_of_kinds(after, np.unique(rows["kind"][steps]))[:, 1:],
        steps=(int(rows["ended"][late].sum()), int(rows["duration_ns"][late].sum())),
        dropped=int(columns["count"].size - sound.size),
        descriptions={str(group.get("name")): str(group.get("desc") or "") for group in entries(rank.info, "groups")},
    )


def _sound(columns: dict[str, Ints]) -> Ints:
    """Rows that a recorder could have written."""
    fine = np.ones(columns["count"].size, bool)
    for name in ("from_step", "kind", *_ADDED):
        fine &= (columns[name] >= 0) & (columns[name] < _EXACT)
    fine &= columns["to_step"] > columns["from_step"]
    fine &= (columns["phase"] != MISSING) | ((columns["group"] != MISSING) & (columns["op"] != MISSING))
    return np.flatnonzero(fine)


def _coarsen(rows: dict[str, Ints]) -> None:
    """Puts neighbouring stretches together where there are many; on all ranks the same ones."""
    bounds = stretch_bounds()
    place = np.searchsorted(bounds, rows["from_step"], side="right") - 1
    spread = int(place.max(initial=0) - place.min(initial=place.max(initial=0))) + 1
    together = 1
    while spread > together * _MOST_STRETCHES:
        together *= 2
    if together > 1:
        late = place > 0  # the warm-up stays by itself
        first = np.where(late, np.maximum(place - place % together, 1), 0)
        last = np.minimum(np.where(late, place - place % together + together, 1), bounds.size - 1)
        rows["from_step"], rows["to_step"] = bounds[first], bounds[last]


def _bins(rank: Rank) -> Ints:
    """Stretch, kind, bin and count, shape (n, 4)."""
    found = rank.columns("aggregate_bins", ("from_step", "kind", "bin", "count"))
    table = np.stack([values.astype(np.int64) for values in found.values()], axis=1)
    fine = (table >= 0).all(axis=1) & (table[:, 2] <= _MOST_BIN)
    return table[fine]


def _of_kinds(bins: Ints, ids: Ints) -> Ints:
    """Place of the kind in `ids`, bin and count, added up over the stretches, shape (n, 3)."""
    own = bins[np.isin(bins[:, 1], ids)]
    if not own.size:
        return np.zeros((0, 3), np.int64)
    keys, first = group_keys([own[:, 1], own[:, 2]])
    counts = np.bincount(keys, weights=own[:, 3]).astype(np.int64)
    places = np.searchsorted(ids, own[first, 1])
    return np.stack([places, own[first, 2], counts], axis=1)


def _of_phase(rows: dict[str, Ints], words: list[str], phase: str) -> Ints:
    found: Ints = np.flatnonzero(rows["phase"] == words.index(phase)) if phase in words else np.zeros(0, np.int64)
    return found


def _added_up(rows: dict[str, Ints]) -> tuple[Ints, Ints, tuple[Ints, Ints]]:
    """Numbers of each stretch and kind, the first row of each, and the two keys; ascending by stretch, then kind."""
    order = np.lexsort((rows["kind"], rows["from_step"]))
    stretch, kind = rows["from_step"][order], rows["kind"][order]
    new = np.ones(order.size, bool)
    new[1:] = (np.diff(stretch) != 0) | (np.diff(kind) != 0)
    starts = np.flatnonzero(new)
    if not starts.size:
        return np.zeros((0, len(NUMBERS)), np.int64), starts, (stretch, kind)
    table = np.stack([rows[name][order] for name in NUMBERS])
    plain, low = len(_ADDED), len(_ADDED) + len(_LEAST)
    least = np.minimum.reduceat(np.where(table[plain:low] < 0, _NEVER, table[plain:low]), starts, axis=1)
    parts = [
        np.add.reduceat(table[:plain], starts, axis=1),
        np.where(least == _NEVER, MISSING, least),
        np.maximum.reduceat(table[low:], starts, axis=1),
    ]
    return np.concatenate(parts).T, order[starts], (stretch[starts], kind[starts])


def _kind(rows: dict[str, Ints], words: dict[str, list[str]], row: int) -> Kind:
    def word(name: str) -> str:
        code = int(rows[name][row])
        return words[name][code] if code != MISSING else ""

    op = word("op")
    peer = int(rows["peer"][row]) if op in POINT_TO_POINT else MISSING
    return Kind(word("group"), op, word("dtype"), int(rows["in_bytes"][row]), int(rows["out_bytes"][row]), peer)
