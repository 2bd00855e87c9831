"""The link of one process group, or of one direction between two ranks: a queue and its servers."""

from __future__ import annotations

import itertools
import os
import queue
import sys
import threading
import time
import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from lab.board import STUCK, Board, folder
from lab.plan import Plan
from lab.shared import SharedLink
from torch._C._distributed_c10d import Work, _create_work_from_future

from commlens.profiler.operators import Operator, num_bytes

_EARLIEST_NS = 500_000
_HANDOVER_NS = 120_000  # from here to a thread that stands still, where the end of its call is seen
_wait = Work.wait  # taken at import, before a recorder puts its own in: our waits are not the job's


class Call(NamedTuple):
    """One call of an operator.

    `port_bytes` is None where it costs nothing; `needs` are the members, by rank in the group, without whom this
    rank's part cannot end; `stands` says that the caller stands still for it.
    """

    operator: Operator
    args: tuple[Any, ...]
    port_bytes: float | None
    needs: tuple[int, ...]
    stands: bool

    @property
    def signature(self) -> int:
        """The same on all members of an orderly job."""
        place = self.operator.inputs
        same = self.operator.op not in ("all_to_all", "gather", "scatter", "send", "recv") and place is not None
        return zlib.crc32(f"{self.operator.op} {num_bytes(self.args[place]) if same else 0}".encode())


class Channel:
    """Takes calls in order, on as many threads as Gloo has.

    Attributes:
        members: global ranks.
        me: this rank's place among them.
        released_ns: planned end of the latest call that has ended.
    """

    def __init__(self, plan: Plan, name: str, members: Sequence[int], me: int, servers: int) -> None:
        self.members = members
        self.me = me
        self.released_ns = 0
        self._plan = plan
        self._name = name
        self._board = Board(f"{name}.{'-'.join(map(str, members))}", len(members))
        self._sequence = itertools.count()
        self._planned_ns = 0
        self._early_ns = 100_000
        self._shared: SharedLink | None = None
        self._queue: queue.SimpleQueue[tuple[int, Call, Any, Any] | None] = queue.SimpleQueue()
        self._servers = [
            threading.Thread(target=self._serve, daemon=True, name=f"lab-link-{name}") for _ in range(servers)
        ]
        for server in self._servers:
            server.start()

    def post(self, call: Call) -> int:
        """Tells the others that this rank is about to issue; returns the sequence number."""
        seq = next(self._sequence)
        self._board.post(seq, self.me, time.perf_counter_ns(), call.port_bytes or 0.0, call.signature)
        return seq

    def carry(self, seq: int, call: Call, real: Any) -> Any:
        """Work for the caller, which ends when the plan says, after the real one (None: nothing moves)."""
        if self._plan.shared and self._shared is None and call.port_bytes is not None and len(self._servers) == 2:
            self._shared = SharedLink(seq, self._look)
        future: torch.futures.Future[Any] = torch.futures.Future()
        work = _create_work_from_future(future)
        self._queue.put((seq, call, real, future))
        return work

    def close(self) -> None:
        """Ends the servers: a thread in the midst of torch's code must not meet the end of the interpreter."""
        for _ in self._servers:
            self._queue.put(None)
        for server in self._servers:
            server.join(1.0)

    def _serve(self) -> None:
        free_ns = 0
        while (item := self._queue.get()) is not None:
            seq, call, real, future = item
            try:
                self._meet(seq, call) if real is None else _wait(real)
            except RuntimeError as error:  # the Work cannot fail: its wait does not raise
                sys.stderr.write(f"the real {call.operator.op} failed: {error}\n")
                os._exit(1)
            if call.port_bytes is not None:
                if self._shared is not None:
                    free_ns = self._sleep_beside_others(seq)
                else:
                    # Gloo's barrier waits for everything before it.
                    free_ns = self._end_ns(seq, call, self._planned_ns if call.operator.op == "barrier" else free_ns)
                    _sleep_until(free_ns - self._early_ns)
                self._planned_ns = max(self._planned_ns, free_ns)
                self.released_ns = max(self.released_ns, free_ns)
            future.set_result(_outputs(call))
            self._aim(free_ns - (_HANDOVER_NS if call.stands else 0))
            del item, call, real, future

    def _meet(self, seq: int, call: Call) -> None:
        """Waits until everybody needed has issued the same; forever, where they never do."""
        while not (agree := self._board.agree(seq, call.needs)):
            if agree is False:
                (folder() / STUCK).touch()
            time.sleep(2e-4 if agree is None else 3600)

    def _aim(self, end_ns: int) -> None:
        """Learns how long this machine takes to wake and to tell: calls are ended earlier by that."""
        late_ns = time.perf_counter_ns() - end_ns
        if abs(late_ns) < _EARLIEST_NS:
            self._early_ns = min(max(self._early_ns + late_ns // 8, 0), _EARLIEST_NS)

    def _sleep_beside_others(self, seq: int) -> int:
        """Sleeps until a collective ends that shares the link; its planned end."""
        assert self._shared is not None
        end_ns = self._shared.end_ns(seq)
        while True:
            assert end_ns is not None
            _sleep_until(end_ns - self._early_ns)
            if (later := self._shared.end_ns(seq)) == end_ns:
                return end_ns
            end_ns = later

    def _look(self, seq: int) -> tuple[int, int] | None:
        everyone = range(len(self.members))
        if self._board.agree(seq, everyone) is None:
            return None
        arrived_ns, port_bytes = self._board.latest(seq, everyone)
        return arrived_ns, self._plan.cost_ns(self.members, port_bytes, self._name, seq)

    def _end_ns(self, seq: int, call: Call, free_ns: int) -> int:
        arrived_ns, port_bytes = self._board.latest(seq, call.needs)
        return max(arrived_ns, free_ns) + self._plan.cost_ns(self.members, port_bytes, self._name, seq)


def _outputs(call: Call) -> list[torch.Tensor]:
    """What Gloo's own futures hold: the tensors written."""
    place = call.operator.outputs
    return [] if place is None else list(_flat(call.args[place]))


def _flat(tensors: Any) -> Any:
    if isinstance(tensors, torch.Tensor):
        yield tensors
    else:
        for each in tensors:
            yield from _flat(each)


def _sleep_until(at_ns: int) -> None:
    while (left := at_ns - time.perf_counter_ns()) > 0:
        time.sleep(left / 1e9)
