"""Mixture of experts, one expert a rank: tokens go to their expert and come back by all-to-all."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from lab.jobs.common import Job, Layer, options
from torch import nn


class _Exchange(torch.autograd.Function):
    """Sends `send[i]` rows to rank i and receives `recv[i]` rows from it; backward takes the way back."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, recv: list[int], send: list[int], job: Job) -> torch.Tensor:
        ctx.how = send, recv, job
        out = x.new_empty(sum(recv), x.shape[1])
        dist.all_to_all_single(out, x.contiguous(), recv, send)
        job.lane.resume()
        return out

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> Any:
        return _Exchange.apply(grad, *ctx.how), None, None, None


def splits(tokens: int, world: int, hot: int, extra: float) -> list[int]:
    """Tokens that a rank sends to each expert: equal shares, of which a part `extra` goes to the hot one instead."""
    share = round(tokens / world * (1 - extra))
    return [tokens - share * (world - 1) if expert == hot else share for expert in range(world)]


def main() -> None:
    args = options(__doc__, layers=2, width=64, tokens=512, hot=-1, extra=0.0, slows=1.0).parse_args()
    job = Job(args)
    send = splits(args.tokens, job.world, args.hot, args.extra if args.hot >= 0 else 0.0)
    recv = [send[job.rank]] * job.world
    # An expert computes on what it receives; `slows` is the part of a layer's time that grows with it.
    load = 1 + args.slows * (sum(recv) / args.tokens - 1)
    experts = nn.ModuleList(Layer(job.lane, args.width, args.layers, times=load) for _ in range(args.layers))
    optimizer = torch.optim.SGD(experts.parameters(), lr=1e-6)
    batch = torch.randn(args.tokens, args.width, requires_grad=True)
    for _ in job.steps():
        x = batch
        for expert in experts:
            out = expert(_Exchange.apply(x, recv, send, job))
            x = x + _Exchange.apply(out, send, recv, job)
        x.square().mean().backward()
        job.end_step(optimizer)


if __name__ == "__main__":
    main()
