"""One entry of a Flight Recorder dump, read: which operation, how many bytes, and how far it had got.

Names and meanings: torch/csrc/distributed/c10d/FlightRecorder.hpp and FlightRecorderDetail.hpp of torch 2.13, and
its analyzer, torch/distributed/flight_recorder; dumps of version 1 have `seq_id` and no `process_group`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from commlens.trace.importers.flight_recorder_sizes import dtype, sizes, whole
from commlens.trace.importers.torch_names import op_of
from commlens.trace.schema import MISSING, OPS, POINT_TO_POINT

# How far an operation had got when it was dumped.
#   scheduled  issued; it has begun only where torch noticed that, which it does with TORCH_NCCL_ENABLE_TIMING=1
#   started    begun, not ended
#   completed  ended
#   timed_out  not ended, and torch had given it up
#   unknown    a part of a coalesced call whose end is not in the dump
SCHEDULED, STARTED, COMPLETED, TIMED_OUT, UNKNOWN = "scheduled", "started", "completed", "timed_out", "unknown"

_PEERS: Final = re.compile(r"(\d{1,9})(?:->|<-)(\d{1,9})")
_CLOSES: Final = re.compile(r"(?:[A-Z_]+_)?coalesced")  # ends a coalesced call, which has an entry a part as well


@dataclass(frozen=True)
class Entry:
    """What one entry says; MISSING, "" and None where it does not.

    Attributes:
        backend: "nccl", "gloo", ...
        title: the operation as torch names it.
        op: one of `schema.OPS`.
        dtype: one of `schema.DTYPES`.
        group: name of the process group.
        desc: its description.
        pg_id: which group object of this process.
        seq: n-th collective of the group, from 1.
        launch: what the entries of one launch share.
        op_id: n-th operation of the group, from 1, those within coalesced calls counted.
        record_id: n-th entry of this process, from 0.
        in_bytes: handed in.
        out_bytes: received.
        own: this rank's number in the group, of messages only.
        peer: the other's number in the group.
        created_ns: when it was issued, wall clock.
        timeout_ms: how long after that torch gives it up.
        state: one of the above.
        closes: it ends a coalesced call.
        timed: it has a duration.
    """

    backend: str
    title: str
    op: str | None
    dtype: str | None
    group: str
    desc: str
    pg_id: int
    seq: int
    launch: tuple[object, ...]
    op_id: int
    record_id: int
    in_bytes: int
    out_bytes: int
    own: int
    peer: int
    created_ns: int
    timeout_ms: int
    state: str
    closes: bool
    timed: bool


def read_entry(raw: object, place: int) -> Entry | None:
    """One entry of a dump, None where it is none. `place` is which one."""
    name = raw.get("profiling_name") if isinstance(raw, dict) else None
    if not isinstance(raw, dict) or not isinstance(name, str):
        return None
    backend, _, title = name.rpartition(":")
    word = title.split(" ")[0]
    op = _op(word)
    own, peer = _peers(title) if op in POINT_TO_POINT else (MISSING, MISSING)
    group, desc = _group(raw)
    pg_id, seq, p2p = whole(raw.get("pg_id")), _seq(raw), whole(raw.get("p2p_seq_id"))
    numbered = seq != MISSING or p2p != MISSING
    in_bytes, out_bytes = sizes(op, raw)
    return Entry(
        backend=backend,
        title=title,
        op=op,
        dtype=None if op == "barrier" else dtype(raw),
        group=group,
        desc=desc,
        pg_id=pg_id,
        seq=seq,
        launch=(group, pg_id, seq, p2p) if numbered else (place,),
        op_id=whole(raw.get("op_id")),
        record_id=whole(raw.get("record_id")),
        in_bytes=in_bytes,
        out_bytes=out_bytes,
        own=own,
        peer=peer,
        created_ns=whole(raw.get("time_created_ns")),
        timeout_ms=whole(raw.get("timeout_ms")),
        state=_state(backend, raw),
        closes=bool(_CLOSES.fullmatch(word)),
        timed=isinstance(raw.get("duration_ms"), int | float),
    )


def settle(entries: Sequence[Entry], gaps: bool) -> list[tuple[Entry, str]]:
    """Each operation and its state; a coalesced call as its parts, which the entry that ends it answers for.

    Torch watches the call, not its parts: the entries of those stay "scheduled" for ever.

    Args:
        entries: of one dump, in its order.
        gaps: the dump lacks entries between others, such as the ends of calls that are over.
    """
    closing = {entry.launch: entry for entry in entries if entry.closes}
    parts = Counter(entry.launch for entry in entries if not entry.closes)
    settled = []
    for entry in entries:
        if entry.closes and parts[entry.launch]:
            continue
        state = closing.get(entry.launch, entry).state
        unwatched = parts[entry.launch] > 1 or (gaps and entry.op in POINT_TO_POINT)
        if entry.launch not in closing and unwatched and state == SCHEDULED:
            state = UNKNOWN
        settled.append((entry, state))
    return settled


def _op(word: str) -> str | None:
    if word.endswith("barrier"):  # NCCL's is an "all_reduce_barrier"
        return "barrier"
    return word if word in OPS else op_of(word.replace("_v_", "_"))


def _seq(raw: Mapping[str, object]) -> int:
    return whole(raw["collective_seq_id"] if "collective_seq_id" in raw else raw.get("seq_id"))


def _group(raw: Mapping[str, object]) -> tuple[str, str]:
    """Name and description; dumps of version 1 number the groups."""
    said = raw.get("process_group")
    parts = said if isinstance(said, list | tuple) else [said]
    name, desc = ([part for part in parts if isinstance(part, str)] + ["", ""])[:2]
    pg_id = whole(raw.get("pg_id"))
    if said is None and pg_id != MISSING:
        name = str(pg_id)
    return name, "" if desc == "undefined" else desc


def _peers(title: str) -> tuple[int, int]:
    """ "send 0->1", "recv 1<-0": this rank, the other."""
    found = _PEERS.search(title)
    return (int(found[1]), int(found[2])) if found else (MISSING, MISSING)


def _state(backend: str, raw: Mapping[str, object]) -> str:
    """The entry's own state.

    Gloo leaves it at "scheduled" and retires what is over. With a device, what is retired and has not
    completed was given up.
    """
    state, retired = raw.get("state"), raw.get("retired") is True
    if state == COMPLETED or (retired and backend == "gloo"):
        return COMPLETED
    if retired:
        return TIMED_OUT
    return state if state in (SCHEDULED, STARTED) else UNKNOWN
