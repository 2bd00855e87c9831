"""The synthetic link: ordinary Gloo collectives that take exactly as long as a plan says.

`install()` replaces the CPU kernels of the `c10d` operators. The replacement runs the real collective (through
the CUDA kernel of the same operator, which hands it to the same Gloo group and releases the interpreter lock),
and gives the caller a Work that ends later: at the last rank's arrival + alpha + bytes / bandwidth. The ranks
tell each other their times of issue on a `Board`, so the end is the same instant on all of them, however
long Gloo took, as long as it took less.

A recorder at the dispatcher's BackendSelect key sees each collective once, as without the link. As in Gloo, two
threads a group take the collectives in order; sends and receives have one link in each direction.
"""

from __future__ import annotations

import atexit
import warnings
from typing import Any

import torch
import torch.distributed as dist
from lab.channel import Call, Channel
from lab.plan import Plan, port_bytes, read_plan
from torch._C import DispatchKey, DispatchKeySet
from torch._C._distributed_c10d import ProcessGroup, Work

from commlens.profiler.operators import OPERATORS, Operator, num_bytes

_UNTOUCHED = ("monitored_barrier_", "recv_any_source_")  # no kernel for CUDA; the sender is not known
_REAL = DispatchKeySet(DispatchKey.CUDA)
_link: Link | None = None


class Link:
    """The links of this process."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.open = False
        self._channels: dict[str, Channel] = {}
        self._library = torch.library.Library("c10d", "IMPL")
        for name, operator in OPERATORS.items():
            if name not in _UNTOUCHED:
                self._library.impl(name, self._kernel(name, operator), "CPU", with_keyset=True, allow_override=True)

    def released_ns(self) -> int:
        """Planned end of the latest collective that has ended here, on the clock of perf_counter_ns."""
        return max((channel.released_ns for channel in self._channels.values()), default=0)

    def close(self) -> None:
        for channel in self._channels.values():
            channel.close()

    def _kernel(self, name: str, operator: Operator) -> Any:
        redispatch = getattr(torch.ops.c10d, name).default._handle.redispatch_boxed
        replaced = torch.library.get_kernel(f"c10d::{name}", "CPU")

        def kernel(keyset: Any, *args: Any) -> Any:
            group = ProcessGroup.unbox(args[operator.group])
            if group not in dist.distributed_c10d._world.pg_group_ranks:  # a group without peers, of the recorder
                return replaced.call_boxed(keyset, *args)
            call, channel = self._call(operator, group, args)
            seq = channel.post(call)
            if self.plan.dry and self.open:
                work = channel.carry(seq, call, None).boxed()
                return work if operator.work is None else (args[operator.outputs or 0], work)
            result = redispatch(_REAL, *args)
            real = Work.unbox(result if operator.work is None else result[operator.work])
            work = channel.carry(seq, call, real).boxed()
            return work if operator.work is None else (*result[: operator.work], work)

        return kernel

    def _call(self, operator: Operator, group: Any, args: tuple[Any, ...]) -> tuple[Call, Channel]:
        peer = args[operator.peer] if operator.peer is not None else None
        given, taken = (num_bytes(args[i]) if i is not None else 0 for i in (operator.inputs, operator.outputs))
        if operator.op in ("send", "recv"):
            ends = (group.rank(), peer) if operator.op == "send" else (peer, group.rank())
            port = float(given + taken) if self.open else None
            return Call(operator, args, port, (0, 1), stands=False), self._direction(group, *ends)
        channel = self._channel(group)
        if operator.op == "all_to_all":
            port = float(max(_away(args, channel.me, args[0], 3, taken), _away(args, channel.me, args[1], 4, given)))
        else:
            port = port_bytes(operator.op, group.size(), given, taken)
        stands = operator.is_async is not None and len(args) > operator.is_async and not args[operator.is_async]
        return Call(operator, args, port if self.open else None, _needed(operator.op, channel, peer), stands), channel

    def _channel(self, group: Any) -> Channel:
        found = self._channels.get(group.group_name)
        if found is None:
            members = dist.get_process_group_ranks(group)
            found = Channel(self.plan, group.group_name, members, group.rank(), servers=2)
            self._channels[group.group_name] = found
        return found

    def _direction(self, group: Any, source: int, target: int) -> Channel:
        name = f"{group.group_name}-{source}-{target}"
        if name not in self._channels:
            ranks = dist.get_process_group_ranks(group)
            me = 0 if group.rank() == source else 1
            self._channels[name] = Channel(self.plan, name, [ranks[source], ranks[target]], me, servers=1)
        return self._channels[name]


def _away(args: tuple[Any, ...], me: int, tensors: Any, splits: int, total: int) -> int:
    """Bytes of an all_to_all that leave or enter this rank."""
    if isinstance(tensors, (list, tuple)):
        return total - num_bytes(tensors[me])
    sizes = args[splits] if len(args) > splits and args[splits] else None
    if sizes is None:
        return total - total // len(dist.get_process_group_ranks(ProcessGroup.unbox(args[2])))
    return total - (total // max(sum(sizes), 1)) * sizes[me]


def _needed(op: str, channel: Channel, root: int | None) -> tuple[int, ...]:
    """Members (by rank in the group) without whom this rank's part cannot end."""
    everyone = tuple(range(len(channel.members)))
    if op in ("broadcast", "scatter"):
        return (channel.me, root or 0)
    if op in ("reduce", "gather") and channel.me != root:
        return (channel.me,)
    return everyone


def install(plan: Plan | None = None) -> Link:
    """Puts the link in, before or after `init_process_group`; every collective is free of cost until `begin`."""
    global _link
    if _link is None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _link = Link(plan or read_plan())
        atexit.register(_link.close)
    return _link


def begin() -> None:
    """From here on collectives cost what the plan says; to be called at the same point by every rank."""
    assert _link is not None
    dist.barrier()
    _link.open = True
