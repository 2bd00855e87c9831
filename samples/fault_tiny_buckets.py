"""Planted fault: DDP's buckets are so small that every layer's gradients travel alone and pay a latency of their own.

Run:      torchrun --nproc-per-node 2 samples/fault_tiny_buckets.py
Options:  --fixed uses buckets of torch's default size; --hidden, --layers and --batch set the size.
"""

from argparse import Namespace

import torch
from common import run
from planted import ddp, fit, options, stack


def train(args: Namespace, device: torch.device) -> None:
    model = stack(args, device)
    fit(ddp(model, device) if args.fixed else ddp(model, device, bucket_cap_mb=0.001), args, device)


if __name__ == "__main__":
    run(train, options(__doc__, hidden=96, layers=64, batch=32).parse_args())
