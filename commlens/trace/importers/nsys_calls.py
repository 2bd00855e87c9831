"""Which call launched a kernel of NCCL's, from NVTX ranges of an Nsight Systems export.

NCCL opens a range for each of its calls (ncclAllReduce, ncclGroupEnd), torch one for each collective
(nccl:all_to_all) where torch.autograd.profiler.emit_nvtx is on.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Final

from commlens.trace.importers.nsys_ranges import Range
from commlens.trace.importers.torch_names import op_of
from commlens.trace.schema import OPS

_API: Final = {
    "ncclAllReduce": "all_reduce",
    "ncclAllGather": "all_gather",
    "ncclReduceScatter": "reduce_scatter",
    "ncclAlltoAll": "all_to_all",
    "ncclBroadcast": "broadcast",
    "ncclReduce": "reduce",
    "ncclGather": "gather",
    "ncclScatter": "scatter",
    "ncclSend": "send",
    "ncclRecv": "recv",
}
_IN_GROUP: Final = {"ncclGroupStart": 1, "ncclGroupEnd": -1}


class Calls:
    """Which operation a launch belongs to, by thread and time."""

    def __init__(self, ranges: Iterable[Range]) -> None:
        by_thread: defaultdict[int, list[Range]] = defaultdict(list)
        for each in ranges:
            if each.name.startswith("nccl"):
                by_thread[each.thread].append(each)
        self._torch = {thread: _Spans(_torch_calls(own)) for thread, own in by_thread.items()}
        self._nccl = {thread: _Spans(_nccl_calls(own)) for thread, own in by_thread.items()}

    def op(self, thread: int, time: int) -> str | None:
        """The operation under way on a thread at a time, ns; None where that is not told."""
        for spans in (self._torch, self._nccl):
            if (own := spans.get(thread)) and (op := own.at(time)):
                return op
        return None


class _Spans:
    """Operations by time, of one thread: they do not overlap."""

    def __init__(self, spans: Sequence[tuple[int, int, str | None]]) -> None:
        self._starts = [start for start, _, _ in spans]
        self._spans = spans

    def at(self, time: int) -> str | None:
        place = bisect_right(self._starts, time) - 1
        if place < 0 or self._spans[place][1] < time:
            return None
        return self._spans[place][2]


def _torch_calls(ranges: Sequence[Range]) -> list[tuple[int, int, str | None]]:
    """Named "nccl:all_to_all, op_id = 7", "nccl:send 0->1"."""
    named = [r for r in ranges if r.name.startswith("nccl:")]
    words = [re.split("[ ,]", r.name.removeprefix("nccl:"))[0] for r in named]
    return [(r.start, r.end, w if w in OPS else op_of(w)) for r, w in zip(named, words, strict=True)]


def _nccl_calls(ranges: Sequence[Range]) -> list[tuple[int, int, str | None]]:
    """Calls of NCCL; of a group the end that launches it, with the operation that the group is."""
    found: list[tuple[int, int, str | None]] = []
    depth, group, before = 0, [""], ""
    for each in ranges:
        if each.name.startswith("nccl:"):
            continue
        if step := _IN_GROUP.get(each.name, 0):
            if step > 0 and not depth:
                group = [before]
            depth = max(0, depth + step)
            if not depth:
                found.append((each.start, each.end, _op_of_group(group)))
        elif depth:
            group.append(each.name)
        else:
            found.append((each.start, each.end, _API.get(each.name)))
        before = each.name
    return found


def _op_of_group(group: Sequence[str]) -> str | None:
    """The one operation of a group, given the call before it and the calls within.

    torch's all_to_all asks for the number of ranks and then sends to and receives from each in one group;
    a group of sends and receives alone may be anything.
    """
    before, *calls = group
    ops = {_API.get(name) for name in calls}
    if len(ops) == 1:
        return ops.pop()
    return "all_to_all" if ops == {"send", "recv"} and before == "ncclCommCount" else None
