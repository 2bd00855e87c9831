"""Preallocated room for collectives that are under way.

A collective takes a slot when it is issued; its end and its wait are filled in
later, from whatever thread sees them. The flush thread copies what is new and
gives the slot back. The size is fixed, so memory is bounded however long the
job runs; a collective that finds no slot is counted, not recorded.
"""

from __future__ import annotations

import struct
from collections import deque

import numpy as np
import numpy.typing as npt

from commlens.trace.schema import MISSING, TIMINGS

# One packed slot; names and order are those of `issue` and `ROW`.
_ISSUE = struct.Struct("<qqqqqqqqqqiiiihbbbb")
_TIME = struct.Struct("<q")
_SPAN = struct.Struct("<qq")
ROW = np.dtype(
    [
        ("event", "<i8"),
        ("seq", "<i8"),
        ("in_bytes", "<i8"),
        ("out_bytes", "<i8"),
        ("issued_ns", "<i8"),
        ("started_ns", "<i8"),
        ("completed_ns", "<i8"),
        ("waited_ns", "<i8"),
        ("blocked_ns", "<i8"),
        ("due_ns", "<i8"),
        ("group_size", "<i4"),
        ("peer", "<i4"),
        ("step", "<i4"),
        ("bucket", "<i4"),
        ("group", "<i2"),
        ("op", "i1"),
        ("dtype", "i1"),
        ("timing", "i1"),
        ("thread", "i1"),
    ]
)
assert ROW.itemsize == _ISSUE.size
_ISSUED = ROW.fields["issued_ns"][1]  # type: ignore[index]
_COMPLETED = ROW.fields["completed_ns"][1]  # type: ignore[index]
_WAITED = ROW.fields["waited_ns"][1]  # type: ignore[index]
_TIMING = ROW.fields["timing"][1]  # type: ignore[index]

CAPACITY = 32_768
# A completed collective may still be waited for. After this long its slot is given back anyway.
LINGER_NS = 2_000_000_000
# A collective whose end nobody can see (its work was dropped unwaited) does not hold its slot for ever.
FORGET_NS = 600_000_000_000
ENQUEUE_ONLY = TIMINGS.index("enqueue_only")
_ALL_KNOWN = 4  # issued, completed and waited for
# What a drained row says in the place of `due_ns`: what had been drained of it before, as bits. As in slots.h.
SEEN_ISSUED, SEEN_ENDED, SEEN_WAITED = 1, 4, 8
_SEEN = np.array([0, 1, 5, 9, 13], np.int64)  # of 0 nothing, 1 issued, 2 and its end, 3 and its wait, 4 all

Rows = npt.NDArray[np.void]
Mask = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.intp]


class Slots:
    """A fixed number of slots, shared by all threads under the interpreter lock."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._buffer = bytearray(capacity * ROW.itemsize)
        self._rows = np.frombuffer(self._buffer, dtype=ROW)
        self._free = deque(range(capacity))
        self._seen = np.zeros(capacity, dtype=np.int8)  # how much of a slot has been flushed
        self._events = [MISSING] * capacity
        self._rows["event"] = MISSING
        self.capacity = capacity
        self.issued = 0  # seen by drain so far, dropped ones not counted
        self.dropped = 0

    def __len__(self) -> int:
        """Slots in use."""
        return self.capacity - len(self._free)

    def issue(
        self,
        event: int,
        seq: int,
        in_bytes: int,
        out_bytes: int,
        issued_ns: int,
        group_size: int,
        peer: int,
        step: int,
        bucket: int,
        group: int,
        op: int,
        dtype: int,
        timing: int,
        thread: int,
    ) -> int:
        """Fills a free slot and returns its number, or MISSING when there is none."""
        try:
            slot = self._free.pop()
        except IndexError:
            self.dropped += 1
            return MISSING
        self._events[slot] = event
        _ISSUE.pack_into(
            self._buffer, slot * ROW.itemsize,
            event, seq, in_bytes, out_bytes, issued_ns, -1, -1, -1, -1, -1,
            group_size, peer, step, bucket, group, op, dtype, timing, thread,
        )  # fmt: skip
        return slot

    def completed(self, slot: int, event: int, at_ns: int) -> None:
        """Notes the end; a slot that has moved on to another event is left alone."""
        if self._events[slot] == event:
            _TIME.pack_into(self._buffer, slot * ROW.itemsize + _COMPLETED, at_ns)

    def waited(self, slot: int, event: int, from_ns: int, blocked_ns: int) -> None:
        """Notes that the calling thread stood still from `from_ns` for `blocked_ns`."""
        if self._events[slot] == event:
            _SPAN.pack_into(self._buffer, slot * ROW.itemsize + _WAITED, from_ns, blocked_ns)

    def retime(self, slot: int, event: int, timing: int) -> None:
        """Changes what the end means."""
        if self._events[slot] == event:
            self._buffer[slot * ROW.itemsize + _TIMING] = timing

    def cancel(self, slot: int, event: int) -> None:
        """Forgets a collective whose call raised before it was issued."""
        if self._events[slot] == event:
            self._release(np.array([slot]))

    def take_counts(self) -> tuple[int, int]:
        """Collectives first drained, and dropped, since the last call."""
        taken = self.issued, self.dropped
        self.issued = self.dropped = 0
        return taken

    def drain(self, now_ns: int) -> Rows:
        """Copies what was learnt since the last drain and frees the slots that are finished.

        A collective still under way is copied too, so that a killed job shows
        it; the completed row follows under the same event and replaces it.

        Returns:
            Rows of dtype `ROW`, shape (num_rows,), with what was drained of each before in the place of `due_ns`.
        """
        used = np.flatnonzero(self._rows["event"] != MISSING)
        rows = self._rows[used]
        has_end, has_wait = rows["completed_ns"] >= 0, rows["waited_ns"] >= 0
        known = (1 + has_end + 2 * has_wait).astype(np.int8)
        new = known > self._seen[used]
        self.issued += int(np.count_nonzero(self._seen[used] == 0))
        before, self._seen[used] = _SEEN[self._seen[used]], known
        finished = (known == _ALL_KNOWN) | ((rows["due_ns"] >= 0) & (now_ns >= rows["due_ns"]))
        self._set_due(used, rows, has_end | has_wait | (rows["timing"] == ENQUEUE_ONLY), now_ns)
        self._release(used[finished])
        rows["due_ns"] = before
        return rows[new]

    def _set_due(self, used: Indices, rows: Rows, learnt: Mask, now_ns: int) -> None:
        # Under pressure nothing lingers: losing a late wait beats losing a collective.
        linger = LINGER_NS if len(self) * 2 < self.capacity else 0
        undue = rows["due_ns"] < 0
        self._rows["due_ns"][used[undue & learnt]] = now_ns + linger
        self._rows["due_ns"][used[undue & ~learnt & (now_ns - rows["issued_ns"] > FORGET_NS)]] = now_ns

    def _release(self, slots: Indices) -> None:
        numbers = slots.tolist()
        for slot in numbers:
            self._events[slot] = MISSING
        self._rows["event"][slots] = MISSING
        self._seen[slots] = 0
        self._free.extend(numbers)
