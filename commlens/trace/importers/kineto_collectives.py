"""The collectives in a profiler's trace: from the arguments of kernels, else from the host's calls, else from names."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from commlens.trace.importers.imported import Column
from commlens.trace.importers.kineto_described import Row, columns, complete, describe, describe_old, describe_span
from commlens.trace.importers.kineto_device import Clock, Device
from commlens.trace.importers.kineto_groups import Members
from commlens.trace.importers.kineto_rows import RECORDED, Call, Rows
from commlens.trace.importers.torch_names import op_of
from commlens.trace.schema import MISSING


def collectives(rows: Rows, device: Device, clock: Clock, members: Members) -> dict[str, Column]:
    """The collectives table.

    Args:
        rows: what was kept of the file.
        device: the device rows of it.
        clock: the file's clock.
        members: its process groups.
    """
    found = [*_on_device(rows, device), *_on_host(rows, clock)]
    only = next(iter(members)) if len(members) == 1 else ""
    for row in found:
        row.group = row.group or only
        complete(row, members)
    found.sort(key=lambda row: (row.issued, row.started))
    return columns(found)


def _on_device(rows: Rows, device: Device) -> list[Row]:
    """A row for every kernel of a collective."""
    recorded = _Spans([call for call in rows.calls if call.name == RECORDED])
    spans = _Spans([call for call in rows.calls if call.name != RECORDED])
    begun = int(device.launched[device.launched != MISSING].min(initial=np.iinfo(np.int64).max))
    pointers: dict[str, str] = {}
    found = []
    for place, args in rows.comm_args.items():
        started, launched = int(device.start[place]), int(device.launched[place])
        thread, when = int(device.thread[place]), float(device.launched_us[place])
        row = Row(
            # A launch that the trace does not have came before those it has.
            issued=launched if launched != MISSING else min(started, begun),
            started=started,
            completed=int(device.end[place]),
            timing="device",
            op=rows.ops[int(device.name[place])],
        )
        call = None if args.name else recorded.around(thread, when)
        describe(row, call.args if call else args)
        if call:
            describe_old(row, call.args, pointers)
        span = spans.around(thread, when)
        if span:
            describe_span(row, span)
        found.append(row)
    _tell_by_others(found, [int(device.name[place]) for place in rows.comm_args])
    return found


def _tell_by_others(found: Sequence[Row], names: Sequence[int]) -> None:
    """The operation of kernels whose call is not in the trace, if all others of their name have the same."""
    told: defaultdict[int, set[str]] = defaultdict(set)
    for row, name in zip(found, names, strict=True):
        if row.op is not None:
            told[name].add(row.op)
    for row, name in zip(found, names, strict=True):
        if row.op is None and len(told[name]) == 1:
            row.op = next(iter(told[name]))


def _on_host(rows: Rows, clock: Clock) -> list[Row]:
    """A row for every span of a collective that the host executed: its end is when the profiler was told of it."""
    issues: defaultdict[str | None, list[Call]] = defaultdict(list)
    for call in sorted(rows.calls, key=lambda call: call.start):
        if call.name.startswith("c10d::"):
            issues[op_of(call.name)].append(call)
    spans = [call for call in rows.calls if call.name.startswith(("gloo:", "mpi:", "ucc:"))]
    found = []
    for span in sorted(spans, key=lambda call: -call.start):
        op = op_of(span.name)
        if op is None:
            continue
        # Backwards, so that what was issued before the trace began leaves the first spans without an issue.
        earlier = issues[op]
        while earlier and earlier[-1].start > span.start:
            earlier.pop()
        issue = earlier.pop().start if earlier else span.start
        issued, started, completed = clock.ns(np.array([issue, span.start, span.end])).tolist()
        row = Row(issued, started, completed, "wait", op)
        describe(row, span.args)
        describe_span(row, span)
        found.append(row)
    return found


class _Spans:
    """Calls by thread, to be asked which one an instant lies in."""

    _BACK = 16  # how deep calls nest, at most

    def __init__(self, calls: Sequence[Call]) -> None:
        self._threads: dict[int, tuple[NDArray[np.float64], list[Call]]] = {}
        by_thread: defaultdict[int, list[Call]] = defaultdict(list)
        for call in sorted(calls, key=lambda call: call.start):
            by_thread[call.thread].append(call)
        for thread, own in by_thread.items():
            self._threads[thread] = np.array([call.start for call in own]), own

    def around(self, thread: int, us: float) -> Call | None:
        """The innermost call of a thread around an instant, None where there is none."""
        if thread not in self._threads:
            return None
        starts, calls = self._threads[thread]
        last = int(np.searchsorted(starts, us, side="right"))
        return next((call for call in reversed(calls[max(0, last - self._BACK) : last]) if call.end >= us), None)
