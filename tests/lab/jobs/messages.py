"""Gradients all-reduced one by one, in many tiny messages."""

from __future__ import annotations

import torch
from lab.jobs.common import Job, Layer, options
from torch import nn


def main() -> None:
    args = options(__doc__, layers=4, width=32, messages=150, elements=64).parse_args()
    job = Job(args)
    model = nn.Sequential(*(Layer(job.lane, args.width, args.layers) for _ in range(args.layers)))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    batch = torch.randn(4, args.width, requires_grad=True)
    gradients = [torch.ones(args.elements) for _ in range(args.messages)]
    for _ in job.steps():
        model(batch).square().mean().backward()
        for gradient in gradients:
            job.all_reduce(gradient)
        job.end_step(optimizer)


if __name__ == "__main__":
    main()
