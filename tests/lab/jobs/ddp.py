"""DistributedDataParallel: gradients are all-reduced in several buckets while backward still runs."""

from __future__ import annotations

import torch
import torch.distributed as dist
from lab.jobs.common import Job, Layer, options
from torch import nn
from torch.nn.parallel import DistributedDataParallel


def main() -> None:
    args = options(__doc__, layers=8, width=128, bucket_kb=128.0).parse_args()
    job = Job(args)
    dist._DEFAULT_FIRST_BUCKET_BYTES = int(args.bucket_kb * 1024)  # type: ignore[attr-defined]
    layers = [Layer(job.lane, args.width, args.layers, reduced=True) for _ in range(args.layers)]
    model = DistributedDataParallel(nn.Sequential(*layers), bucket_cap_mb=args.bucket_kb / 1024)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    batch = torch.randn(4, args.width)
    for _ in job.steps():
        model(batch).square().mean().backward()
        job.end_step(optimizer)


if __name__ == "__main__":
    main()
