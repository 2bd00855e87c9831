"""Gradients of many sizes: DistributedDataParallel with what the options say of buckets and hook, or by hand."""

from __future__ import annotations

import argparse
import random
from contextlib import nullcontext
from typing import Any

import torch
from lab.jobs.common import Job, options
from lab.lane import Lane
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import fp16_compress_hook
from torch.nn.parallel import DistributedDataParallel


class Sized(nn.Module):
    """A parameter of `elements`, whose forward takes one of `parts` and its gradient `times` as long as the average."""

    def __init__(self, lane: Lane, elements: int, parts: int, times: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((elements,), 0.01))
        self._lane, self._parts = lane, parts
        self.weight.register_hook(lambda _: lane.run("backward", parts, times))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self._lane.resume()  # DDP may have stood still for buffers
        y = x + self.weight.mean()
        self._lane.run("forward", self._parts)
        return y


class Held(nn.Module):
    """Buffers that DDP sends before each forward."""

    def __init__(self, mib: float) -> None:
        super().__init__()
        self.register_buffer("held", torch.zeros(round(mib * 2**20 / 4)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def layers(lane: Lane, count: int, mib: float) -> list[nn.Module]:
    """Layers of 1 : 8 in size, `mib` together, the same ones every time."""
    draw = random.Random(7)
    shares = [2 ** draw.uniform(0, 3) for _ in range(count)]
    times = [draw.uniform(0.4, 1.6) for _ in range(count)]
    elements = [round(mib * 2**20 / 4 * share / sum(shares)) for share in shares]
    return [Sized(lane, n, count, t * count / sum(times)) for n, t in zip(elements, times, strict=True)]


def step(job: Job, model: nn.Module, batch: torch.Tensor) -> None:
    """The step's micro-batches; by hand, gradients are reduced one by one after them."""
    args = job.args
    for number in range(args.micro):
        quiet = args.period or (args.no_sync and number < args.micro - 1)
        with model.no_sync() if quiet else nullcontext():  # type: ignore[operator]
            model(batch).mean().backward()
        job.lane.resume()
    if args.manual:
        for parameter in reversed(list(model.parameters())):
            assert parameter.grad is not None
            job.all_reduce(parameter.grad)


def average(job: Job, model: nn.Module) -> None:
    """The average of all ranks' parameters, as one message."""
    parameters = list(model.parameters())
    flat = torch.cat([parameter.detach() for parameter in parameters])
    job.lane.resume()
    job.all_reduce(flat)
    for parameter, part in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
        parameter.data.copy_(part / job.world)


def parallel(args: argparse.Namespace, model: nn.Module) -> nn.Module:
    """The model in DDP, as the options say."""
    settings: dict[str, Any] = {"bucket_cap_mb": args.cap_mb} if args.cap_mb else {}
    settings |= {"find_unused_parameters": bool(args.find_unused), "static_graph": bool(args.static_graph)}
    ddp = DistributedDataParallel(model, broadcast_buffers=bool(args.broadcast), **settings)
    if args.fp16:
        ddp.register_comm_hook(None, fp16_compress_hook)
    return ddp


def main() -> None:
    defaults = {"cap_mb": 0.0, "fp16": 0, "manual": 0, "micro": 1, "no_sync": 0, "period": 0}
    flags = {"find_unused": 0, "static_graph": 0, "buffers": 0.0, "broadcast": 1}
    args = options(__doc__, layers=40, mib=10.0, **defaults, **flags).parse_args()
    job = Job(args)
    held = [Held(args.buffers)] if args.buffers else []
    model: nn.Module = nn.Sequential(*held, *layers(job.lane, args.layers, args.mib))
    model = model if args.manual else parallel(args, model)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-6)
    batch = torch.randn(4, 8)
    for _ in job.steps():
        step(job, model, batch)
        job.end_step(optimizer)
        if args.period and (job.lane.step + 1) % args.period == 0:
            average(job, model)


if __name__ == "__main__":
    main()
