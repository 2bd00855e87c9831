"""Tensor parallelism: every block all-reduces its activations in forward and in backward, and stands still for it."""

from __future__ import annotations

from typing import Any

import torch
from lab.jobs.common import Job, Layer, options
from torch import nn


class _Sum(torch.autograd.Function):
    """All-reduces in the forward, and in the backward the gradient."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, job: Job) -> torch.Tensor:
        ctx.job = job
        return job.all_reduce(x.clone(), "forward")

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> Any:
        return ctx.job.all_reduce(grad.clone(), "backward"), None


class Block(nn.Module):
    def __init__(self, job: Job, width: int, parts: int) -> None:
        super().__init__()
        self.job = job
        self.layer = Layer(job.lane, width, parts)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + _Sum.apply(self.layer(x), self.job)


def main() -> None:
    args = options(__doc__, layers=4, width=32, rows=512).parse_args()
    job = Job(args)
    model = nn.Sequential(*(Block(job, args.width, args.layers) for _ in range(args.layers)))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-6)
    batch = torch.randn(args.rows, args.width, requires_grad=True)
    for _ in job.steps():
        model(batch).square().mean().backward()
        job.all_reduce(torch.ones(1), "norm")  # of the gradients, as clipping needs it
        job.end_step(optimizer)


if __name__ == "__main__":
    main()
