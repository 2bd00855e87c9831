"""What the lab's jobs share: options, the link, the lane, and modules whose compute is sleep."""

from __future__ import annotations

import argparse
import datetime
import os
from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from lab import link
from lab.board import LATE, PID, folder
from lab.lane import Lane
from lab.plan import read_plan
from lab.quiet import quiet
from torch import nn


def options(doc: str, **defaults: float) -> argparse.ArgumentParser:
    """Options that every job has; `defaults` are those of this job."""
    parser = argparse.ArgumentParser(description=doc)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--timeout", type=float, default=60, help="of Gloo, seconds")
    for name, value in {"load": 10.0, "forward": 50.0, "backward": 90.0, **defaults}.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    return parser


class Job:
    """One rank of a lab job, joined to the others."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        plan = read_plan()
        torch.set_num_threads(1)
        torch.manual_seed(plan.seed)
        installed = link.install(plan)
        dist.init_process_group("gloo", timeout=datetime.timedelta(seconds=args.timeout))
        self.rank, self.world = dist.get_rank(), dist.get_world_size()
        (folder() / f"{PID}{self.rank}").write_text(str(os.getpid()))
        phases = {name: getattr(args, name) for name in ("load", "forward", "backward")}
        self.lane = Lane(plan, self.rank, self.world, phases, installed.released_ns)

    def steps(self) -> Iterator[int]:
        """The steps, each begun with the wait for input."""
        quiet()
        link.begin()
        self.lane.resume()
        for step in range(self.args.steps):
            self.lane.begin_step(step)
            self.lane.run("load")
            yield step
        (folder() / f"{LATE}{self.rank}").write_text(str(self.lane.late_ms))
        dist.destroy_process_group()

    def end_step(self, optimizer: torch.optim.Optimizer) -> None:
        """The optimizer's step, all ranks abreast in the first two: a recorder takes its time to look around there."""
        self.lane.resume()
        if self.lane.step < 2:
            dist.barrier()
            self.lane.resume()
        optimizer.step()
        optimizer.zero_grad()

    def all_reduce(self, tensor: torch.Tensor, name: str = "", group: Any = None) -> torch.Tensor:
        """A blocking all_reduce, unless a fault makes this rank skip it or get its size wrong."""
        if self.lane.fault("skip", name=name):
            return tensor
        if self.lane.fault("odd-size", name=name):
            tensor = tensor.new_zeros(tensor.numel() + 1024)
        dist.all_reduce(tensor, group=group)
        self.lane.resume()
        return tensor


class _Paced(torch.autograd.Function):
    """Identity whose backward computes a part of the lane's backward."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, layer: Layer) -> torch.Tensor:
        ctx.layer = layer
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> Any:
        ctx.layer.run("backward")
        return grad, None


class Layer(nn.Module):
    """A small linear layer that takes one of `parts` of the lane's forward and backward, `times` as long as planned.

    The real work comes before the sleep, which makes up for it, so that whatever follows is on time.

    Args:
        waits: a collective may have held the thread just before (FSDP's all-gather).
        reduced: its gradient is handed on as soon as it is there (DDP's reducer), so the sleep comes just before.
    """

    def __init__(
        self, lane: Lane, width: int, parts: int, waits: bool = False, times: float = 1.0, reduced: bool = False
    ) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width, bias=False)
        self._lane, self._parts, self._waits, self._times, self._reduced = lane, parts, waits, times, reduced
        if reduced:
            self.linear.weight.register_hook(lambda _: self.run("backward"))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self._waits:
            self._lane.resume()
        y = self.linear(x if self._reduced else _Paced.apply(x, self))
        self._lane.run("forward", self._parts, self._times)
        return y

    def run(self, phase: str) -> None:
        if self._waits:
            self._lane.resume()
        self._lane.run(phase, self._parts, self._times)
