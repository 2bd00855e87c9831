"""FSDP2: parameters are gathered before each block's forward and backward, gradients scattered after."""

from __future__ import annotations

import torch
import torch.distributed as dist
from lab.jobs.common import Job, Layer, options
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard


def main() -> None:
    args = options(__doc__, layers=4, width=128).parse_args()
    job = Job(args)
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    model = nn.Sequential(*(Layer(job.lane, args.width, args.layers, waits=True) for _ in range(args.layers)))
    for block in model:
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    batch = torch.randn(4, args.width, requires_grad=True)
    for _ in job.steps():
        model(batch).square().mean().backward()
        job.end_step(optimizer)


if __name__ == "__main__":
    main()
