"""Planted fault: gradients of several micro-batches are added up, but DDP reduces them after each one.

Run:      torchrun --nproc-per-node 2 samples/fault_no_sync.py
Options:  --fixed puts all but the last micro-batch under no_sync(); --micro sets how many there are;
          --hidden, --layers and --batch (rows per rank and micro-batch) set the size.
"""

import contextlib
from argparse import Namespace

import torch
from common import run
from planted import ddp, fit, options, stack
from torch import nn


def train(args: Namespace, device: torch.device) -> None:
    def accumulate(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        total = torch.zeros((), device=device)
        for micro in range(args.micro):
            quiet = args.fixed and micro < args.micro - 1
            with model.no_sync() if quiet else contextlib.nullcontext():
                loss = nn.functional.mse_loss(model(x.roll(micro, dims=0)), y.roll(micro, dims=0)) / args.micro
                loss.backward()
            total += loss.detach()
        return total

    fit(ddp(stack(args, device), device, bucket_cap_mb=4), args, device, accumulate)


def main() -> None:
    p = options(__doc__, hidden=512, layers=8, batch=64)
    p.add_argument("--micro", type=int, default=4, help="micro-batches per step")
    run(train, p.parse_args())


if __name__ == "__main__":
    main()
