"""FSDP2: parameters are gathered before each block's forward and backward, gradients scattered after."""

from __future__ import annotations

import argparse
import random
from typing import Any

import torch
import torch.distributed as dist
from lab.jobs.common import Job, Layer, options
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard


class Block(nn.Module):
    """A layer with more parameters than it takes."""

    def __init__(self, layer: Layer, elements: int) -> None:
        super().__init__()
        self.layer = layer
        self.extra = nn.Parameter(torch.full((elements,), 0.01))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.layer(x)
        return y + self.extra.mean()


def blocks(job: Job, args: argparse.Namespace) -> list[nn.Module]:
    """Blocks of 1 : 8 in size, `mib` more than their layers together, the same ones every time."""
    layers = [Layer(job.lane, args.width, args.layers, waits=True) for _ in range(args.layers)]
    if not args.mib:
        return list(layers)
    draw = random.Random(7)
    shares = [2 ** draw.uniform(0, 3) for _ in layers]
    # Even counts: shards of all ranks are then equally large.
    elements = [8 * round(args.mib * 2**20 / 32 * share / sum(shares)) for share in shares]
    return [Block(layer, n) for layer, n in zip(layers, elements, strict=True)]


def sharded(model: nn.Sequential, args: argparse.Namespace) -> None:
    """Shards blocks, `merge` at once, and then the whole."""
    world = dist.get_world_size()
    mesh = init_device_mesh("cpu", (world,))
    if args.shard_size:
        shape = (world // args.shard_size, args.shard_size)
        mesh = init_device_mesh("cpu", shape, mesh_dim_names=("replicate", "shard"))
    settings: dict[str, Any] = {"mesh": mesh, "reshard_after_forward": bool(args.reshard)}
    if args.reduce16:
        settings["mp_policy"] = MixedPrecisionPolicy(reduce_dtype=torch.bfloat16)
    parts = list(model)
    for begin in range(0, len(parts), args.merge):
        group = parts[begin : begin + args.merge]
        fully_shard(group if len(group) > 1 else group[0], **settings)
    fully_shard(model, mesh=mesh)


def main() -> None:
    flags = {"reshard": 1, "merge": 1, "reduce16": 0, "shard_size": 0}
    args = options(__doc__, layers=4, width=128, mib=0.0, **flags).parse_args()
    job = Job(args)
    model = nn.Sequential(*blocks(job, args))
    sharded(model, args)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    batch = torch.randn(4, args.width, requires_grad=True)
    for _ in job.steps():
        model(batch).square().mean().backward()
        job.end_step(optimizer)


if __name__ == "__main__":
    main()
