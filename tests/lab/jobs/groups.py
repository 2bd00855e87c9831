"""Several data-parallel groups of two neighbouring ranks, which do the same, and the world."""

from __future__ import annotations

import torch
import torch.distributed as dist
from lab.jobs.common import Job, Layer, options
from torch import nn


def main() -> None:
    args = options(__doc__, layers=4, width=128, reduces=3).parse_args()
    job = Job(args)
    pairs = [dist.new_group([first, first + 1]) for first in range(0, job.world, 2)]
    pair = pairs[job.rank // 2]
    model = nn.Sequential(*(Layer(job.lane, args.width, args.layers) for _ in range(args.layers)))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    batch = torch.randn(4, args.width, requires_grad=True)
    gradients = [torch.ones(args.width * args.width) for _ in range(args.reduces)]
    for _ in job.steps():
        model(batch).square().mean().backward()
        for gradient in gradients:
            job.all_reduce(gradient, "pair", pair)
        job.all_reduce(torch.ones(16), "norm")
        job.end_step(optimizer)


if __name__ == "__main__":
    main()
