"""Planted fault: FSDP2 shards the whole model as one unit, so that everything is gathered before anything is computed.

Run:      torchrun --nproc-per-node 2 samples/fault_one_unit.py
Options:  --fixed shards each layer by itself; --hidden, --layers and --batch set the size.
"""

from argparse import Namespace

import torch
import torch.distributed as dist
from common import run
from planted import fit, options, stack
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard


def train(args: Namespace, device: torch.device) -> None:
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    model = stack(args, device)
    for layer in model if args.fixed else ():
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    fit(model, args, device)


if __name__ == "__main__":
    run(train, options(__doc__, hidden=768, layers=8, batch=128).parse_args())
