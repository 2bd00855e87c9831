"""Planted fault: DDP searches every step for parameters without a gradient, of which there are none.

Run:      torchrun --nproc-per-node 2 samples/fault_unused_search.py
Options:  --fixed does without the search; --hidden, --layers and --batch set the size.
Besides the search itself, every backward ends with one more all-reduce, of which parameters were used. And DDP does not
look in which order gradients become ready: here the layers were made in another order than they are used in, so its
first bucket waits for the last gradient, and nothing is sent while backward runs.
"""

from argparse import Namespace

import torch
from common import run
from planted import ddp, fit, options, stack
from torch import nn


class LastMadeFirst(nn.Module):
    """Uses the layers in the reverse of the order in which they were made."""

    def __init__(self, layers: nn.Sequential) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in reversed(self.layers):
            x = layer(x)
        return x


def train(args: Namespace, device: torch.device) -> None:
    model = LastMadeFirst(stack(args, device))
    mib = sum(p.numel() * p.element_size() for p in model.parameters()) / 2**20
    fit(ddp(model, device, bucket_cap_mb=mib / 4, find_unused_parameters=not args.fixed), args, device)


if __name__ == "__main__":
    run(train, options(__doc__, hidden=768, layers=8, batch=128).parse_args())
