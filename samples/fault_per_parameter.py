"""Planted fault: after backward, one blocking all-reduce for each parameter's gradient.

Run:      torchrun --nproc-per-node 2 samples/fault_per_parameter.py
Options:  --fixed leaves it to DDP, which sends many gradients in one message while backward runs;
          --hidden, --layers and --batch set the size.
"""

from argparse import Namespace

import torch
import torch.distributed as dist
from common import run
from planted import ddp, fit, options, plain_backward, stack
from torch import nn


def average_each(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    loss = plain_backward(model, x, y)
    for param in model.parameters():
        dist.all_reduce(param.grad)
        param.grad /= dist.get_world_size()
    return loss


def train(args: Namespace, device: torch.device) -> None:
    model = stack(args, device)
    if args.fixed:
        fit(ddp(model, device), args, device)
    else:
        fit(model, args, device, average_each)


if __name__ == "__main__":
    run(train, options(__doc__, hidden=128, layers=32, batch=64).parse_args())
