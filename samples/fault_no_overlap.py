"""Planted fault: gradients are averaged by hand after backward, in one flat tensor, while nothing is computed.

Run:      torchrun --nproc-per-node 2 samples/fault_no_overlap.py
Options:  --fixed leaves it to DDP, which sends them while backward runs; --hidden, --layers and --batch set the size.
"""

from argparse import Namespace

import torch
import torch.distributed as dist
from common import run
from planted import ddp, fit, options, plain_backward, stack
from torch import nn


def average_afterwards(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    loss = plain_backward(model, x, y)
    grads = [param.grad for param in model.parameters()]
    flat = torch.cat([grad.flatten() for grad in grads])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    for grad, mean in zip(grads, flat.split([grad.numel() for grad in grads]), strict=True):
        grad.copy_(mean.view_as(grad))
    return loss


def train(args: Namespace, device: torch.device) -> None:
    model = stack(args, device)
    if args.fixed:
        fit(ddp(model, device, bucket_cap_mb=4), args, device)
    else:
        fit(model, args, device, average_afterwards)


if __name__ == "__main__":
    run(train, options(__doc__, hidden=768, layers=8, batch=128).parse_args())
