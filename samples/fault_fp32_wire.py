"""Planted fault: the model computes in bfloat16 (autocast), but its gradients travel as float32.

Run:      torchrun --nproc-per-node 2 samples/fault_fp32_wire.py
Options:  --fixed sends them as bfloat16; --hidden, --layers and --batch set the size.
"""

from argparse import Namespace

import torch
import torch.distributed as dist
from common import run
from planted import ddp, fit, options, stack
from torch import nn


def as_bfloat16(group: dist.ProcessGroup, bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:
    """torch's bf16_compress_hook, which DDP refuses by its name where there is no NCCL."""
    small = bucket.buffer().to(torch.bfloat16).div_(dist.get_world_size())
    sent = dist.all_reduce(small, async_op=True).get_future()
    return sent.then(lambda done: bucket.buffer().copy_(done.value()[0]))


def in_autocast(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    with torch.autocast(x.device.type, dtype=torch.bfloat16):
        loss = nn.functional.mse_loss(model(x), y)
    loss.backward()
    return loss.detach()


def train(args: Namespace, device: torch.device) -> None:
    model = ddp(stack(args, device), device, bucket_cap_mb=4)
    if args.fixed:
        model.register_comm_hook(None, as_bfloat16)
    fit(model, args, device, in_autocast)


if __name__ == "__main__":
    run(train, options(__doc__, hidden=768, layers=8, batch=32).parse_args())
