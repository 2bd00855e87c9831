"""Timing one operation in one group over message sizes, so that nobody's lateness is measured."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.distributed as dist

from commlens.cli.calibrate_plan import Measurement

_FEWEST, _MOST = 3, 50  # repetitions of a size
_FIRST = 5  # calls before anything is timed: connections, first use of buffers
_SMALL_SHARE = 0.02  # of the time, which any size may take however little its bytes are
_ELEMENT = 4  # bytes of a float32


class Sample(NamedTuple):
    """The times of one message size on one rank; infinite where the rank's time says nothing."""

    bytes: int
    times_ns: list[float]


class _Operation(NamedTuple):
    """A call, the message size of nccl-tests that it stands for, and how many messages it is.

    One message: all ranks start together, and the one that arrives last has nobody to wait for. The shortest
    time of all ranks is therefore the transfer. Several: each begins when its sender received the one before,
    so the time of the first rank, who begins and ends the chain, is that of all of them without a wait.
    """

    call: Callable[[], object]
    bytes: int
    messages: int


def sweep(what: Measurement, group: Any, device: torch.device, seconds: float) -> list[Sample]:
    """Time a measurement on this member of its group; large sizes that do not fit in the time are left out."""
    began, once, sizes = time.perf_counter(), 0.0, what.sizes()
    samples: list[Sample] = []
    for number, size in enumerate(sizes):
        left = seconds - _largest(group, device, time.perf_counter() - began)
        if samples and once * (size / sizes[number - 1]) * (1 + _FEWEST) > left:
            break
        operation = _operation(what, group, size, device)
        once = _warm_up(operation, group, device, 1 if samples else _FIRST)
        if samples and once * _FEWEST > left:
            break
        share = max(left * size / sum(sizes[number:]), _SMALL_SHARE * seconds)
        repetitions = min(max(int(share / once), _FEWEST), _MOST)
        times = [_transfer_ns(operation, group, device) for _ in range(repetitions)]
        samples.append(Sample(operation.bytes, times))
    return samples


def _warm_up(operation: _Operation, group: Any, device: torch.device, times: int) -> float:
    """How long the last of some repetitions took, s, with its barrier; the same on every rank."""
    for _ in range(times):
        began = time.perf_counter()
        _transfer_ns(operation, group, device)
    return max(_largest(group, device, time.perf_counter() - began), 1e-6)


def _transfer_ns(operation: _Operation, group: Any, device: torch.device) -> float:
    """Time of one message on this rank; see `_Operation`."""
    if operation.messages == 1:
        dist.barrier(group=group)
        return _timed_ns(operation.call, device)
    taken = _timed_ns(operation.call, device) / operation.messages
    return taken if dist.get_rank(group) == 0 else math.inf


def _timed_ns(call: Callable[[], object], device: torch.device) -> float:
    """Time of a call: on the device where it has one, else on the host."""
    if device.type == "cuda":
        began, ended = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        began.record()
        call()
        ended.record()
        ended.synchronize()
        return float(began.elapsed_time(ended)) * 1e6
    start = time.perf_counter_ns()
    call()
    return float(time.perf_counter_ns() - start)


def _operation(what: Measurement, group: Any, size: int, device: torch.device) -> _Operation:
    """A message of `size` bytes, rounded to what the ranks can share evenly."""
    members = len(what.ranks)
    each = max(size // _ELEMENT // members, 1)
    whole, part = torch.zeros(each * members, device=device), torch.zeros(each, device=device)
    other = torch.zeros_like(whole) if what.op == "all_to_all" else whole

    def broadcasts() -> None:
        for root in what.ranks:
            dist.broadcast(whole, root, group=group)

    def there_and_back() -> None:
        first, second = what.ranks
        peer, mine = (second, (dist.send, dist.recv)) if dist.get_rank(group) == 0 else (first, (dist.recv, dist.send))
        for move in mine:
            move(whole, peer, group=group)

    calls: dict[str, Callable[[], object]] = {
        "all_reduce": lambda: dist.all_reduce(whole, group=group),
        "all_gather": lambda: dist.all_gather_into_tensor(whole, part, group=group),
        "reduce_scatter": lambda: dist.reduce_scatter_tensor(part, whole, group=group),
        "all_to_all": lambda: dist.all_to_all_single(other, whole, group=group),
        "broadcast": broadcasts,
        "send": there_and_back,
    }
    messages = members if what.op in ("broadcast", "send") else 1
    return _Operation(calls[what.op], whole.numel() * _ELEMENT, messages)


def _largest(group: Any, device: torch.device, value: float) -> float:
    """The largest of the ranks' values, so that all of them decide alike."""
    shared = torch.tensor([value], dtype=torch.float64, device=device)
    dist.all_reduce(shared, dist.ReduceOp.MAX, group=group)
    return float(shared.item())
