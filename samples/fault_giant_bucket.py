"""Planted fault: one DDP bucket holds the whole model, so nothing is sent before backward has ended.

Run:      torchrun --nproc-per-node 2 samples/fault_giant_bucket.py
Options:  --fixed uses buckets of a quarter of the model; --hidden, --layers and --batch set the size.
"""

from argparse import Namespace

import torch
from common import run
from planted import ddp, fit, options, stack


def train(args: Namespace, device: torch.device) -> None:
    model = stack(args, device)
    mib = sum(p.numel() * p.element_size() for p in model.parameters()) / 2**20
    fit(ddp(model, device, bucket_cap_mb=mib / 4 if args.fixed else 10_000), args, device)


if __name__ == "__main__":
    run(train, options(__doc__, hidden=768, layers=8, batch=128).parse_args())
