"""One rank's tables as the numpy columns the analyzers work on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from commlens.analyzers.intervals import Ints
from commlens.trace.ops import message_bytes
from commlens.trace.schema import MISSING, OPS, PHASES

if TYPE_CHECKING:
    from commlens.trace import Rank

_NUMBERS = [
    "seq", "in_bytes", "out_bytes", "group_size", "issued_ns", "started_ns", "completed_ns", "waited_ns",
    "blocked_ns", "thread", "peer", "bucket",
]  # fmt: skip
_SMALL = frozenset({"group_size", "thread", "peer", "bucket"})
_WORDS = ["group", "group_desc", "op", "dtype", "source", "timing"]
_PHASES = ["phase", "name", "start_ns", "end_ns", "step", "thread"]
_KERNELS = ["kind", "name", "blocks", "launched_ns", "start_ns", "end_ns"]
_OVERHEAD = ["time_ns", "events", "hook_ns", "flush_ns", "dropped", "written_bytes", "window_ns"]


@dataclass(frozen=True)
class Column:
    """A string column: int codes, and the words they stand for (MISSING: no word)."""

    codes: Ints
    words: list[str]

    def equals(self, word: str) -> NDArray[np.bool_]:
        """Where the column holds `word`, shape (rows,)."""
        if word not in self.words:
            return np.zeros(self.codes.shape, bool)
        return np.asarray(self.codes == self.words.index(word))


@dataclass(frozen=True)
class Columns:
    """The rows of one rank: collectives by issue, phases, the recorder's own cost, what ran on devices.

    `over` tells which collectives are known to have ended, shape (rows,). `collectives`, `phases` and `kernels`
    map a column of `trace.schema` to an int64 array; `bytes` in `collectives` is the message size of nccl-tests.
    String columns are `words`, `phase_words` and `kernel_words`.
    """

    collectives: dict[str, Ints]
    over: NDArray[np.bool_]
    words: dict[str, Column]
    phases: dict[str, Ints]
    phase_words: dict[str, Column]
    overhead: dict[str, Ints]
    kernels: dict[str, Ints]
    kernel_words: dict[str, Column]

    def during(self, phase: str) -> NDArray[np.bool_]:
        """Which phase rows are of this kind and have both ends, shape (phases,)."""
        return self.phase_words["phase"].equals(phase) & (self.phases["end_ns"] > self.phases["start_ns"])

    @property
    def training_thread(self) -> int:
        """Thread of the first optimizer step or backward; 0 where there is none."""
        for phase in ("optimizer", "backward"):
            rows = np.flatnonzero(self.during(phase))
            if rows.size:
                return int(self.phases["thread"][rows[0]])
        return 0

    @property
    def phases_seen(self) -> frozenset[str]:
        """Kinds of phase with at least one whole row."""
        return frozenset(phase for phase in PHASES if self.during(phase).any())


def read_columns(rank: Rank) -> Columns:
    """The columns of `rank` that the analyzers use; absent tables are empty."""
    raw = rank.columns("collectives", [*_NUMBERS, *_WORDS, "event"])
    numbers = {name: lean(small(raw[name]) if name in _SMALL else _ints(raw[name])) for name in _NUMBERS}
    words = {name: Column(lean(small(raw[name])), rank.vocabulary("collectives", name)) for name in _WORDS}
    numbers["bytes"] = _message_bytes(words["op"], numbers)
    phases, kernels = rank.columns("phases", _PHASES), rank.columns("kernels", _KERNELS)
    return Columns(
        numbers,
        (numbers["completed_ns"] != MISSING) | _told_over(rank.info, _ints(raw["event"])),
        words,
        {name: _ints(phases[name]) for name in ("start_ns", "end_ns", "step", "thread")},
        {name: Column(small(phases[name]), rank.vocabulary("phases", name)) for name in ("phase", "name")},
        {name: _ints(values) for name, values in rank.columns("overhead", _OVERHEAD).items()},
        {name: _ints(kernels[name]) for name in ("blocks", "launched_ns", "start_ns", "end_ns")},
        {name: Column(small(kernels[name]), rank.vocabulary("kernels", name)) for name in ("kind", "name")},
    )


def _told_over(info: Mapping[str, Any], events: Ints) -> NDArray[np.bool_]:
    """Which ended as a dump of the Flight Recorder says, which has no time for it, shape (rows,)."""
    states = (info.get("flight_recorder") or {}).get("states")
    if not isinstance(states, dict):
        return np.zeros(events.size, bool)
    return ~np.isin(events, [event for some in states.values() for event in some])


def _ints(values: NDArray[np.generic]) -> Ints:
    return np.asarray(values).astype(np.int64, copy=False)


def small(values: NDArray[np.generic]) -> Ints:
    """Half the memory, for values that fit: still an array of integers to everyone."""
    return cast(Ints, np.asarray(values).astype(np.int32, copy=False))


def tiny(values: NDArray[np.generic]) -> Ints:
    """An eighth of the memory, for values that fit."""
    return cast(Ints, np.asarray(values).astype(np.int8, copy=False))


def lean(values: Ints) -> Ints:
    """The values, which nobody writes to; where all are the same, in the memory of one."""
    if not values.size or (values != values[0]).any():
        return values
    return np.broadcast_to(values[:1].copy(), values.shape)


def _message_bytes(op: Column, numbers: dict[str, Ints]) -> Ints:
    """nccl-tests' message size of each row, bytes; MISSING where a size is not known."""
    known = (numbers["in_bytes"] != MISSING) & (numbers["out_bytes"] != MISSING)
    result = np.full(op.codes.shape, MISSING, np.int64)
    for code, word in enumerate(op.words):
        rows = np.flatnonzero((op.codes == code) & known)
        sizes = [numbers[name][rows] for name in ("in_bytes", "out_bytes", "group_size")]
        if word in OPS:
            result[rows] = message_bytes(word, *sizes)
    return result
