"""DistributedDataParallel on an MLP: gradients are all-reduced in buckets while backward still runs.

Run:      torchrun --nproc-per-node 2 samples/ddp.py
Options:  --hidden, --layers and --batch set the size, --bucket-cap-mb the size of a bucket;
          --accumulate K adds up the gradients of K micro-batches and synchronises on the last only.
"""

import contextlib
from argparse import Namespace

import torch
import torch.distributed as dist
from common import StepLog, parser, run
from torch import nn
from torch.nn.parallel import DistributedDataParallel


class Layer(nn.Module):
    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.linear = nn.Linear(hidden, hidden)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + nn.functional.gelu(self.linear(x))


def train(args: Namespace, device: torch.device) -> None:
    torch.manual_seed(args.seed)
    layers = [Layer(args.hidden) for _ in range(args.layers - 1)]
    model = nn.Sequential(*layers, nn.Linear(args.hidden, args.hidden)).to(device)
    model = DistributedDataParallel(
        model, device_ids=[device] if device.type == "cuda" else None, bucket_cap_mb=args.bucket_cap_mb
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

    torch.manual_seed(args.seed + 1 + dist.get_rank())  # every rank draws its own data
    log = StepLog(args.steps)
    for step in range(args.steps):
        optimizer.zero_grad()
        total = torch.zeros((), device=device)
        for micro in range(args.accumulate):
            x = torch.randn(args.batch, args.hidden, device=device)
            y = x.roll(1, dims=1)
            last = micro == args.accumulate - 1
            with contextlib.nullcontext() if last else model.no_sync():
                loss = nn.functional.mse_loss(model(x), y) / args.accumulate
                loss.backward()
            total += loss.detach()
        optimizer.step()
        log.step(step, total)

    log.finish(model.parameters(), args.digest)


def main() -> None:
    p = parser(__doc__, steps=50)
    p.add_argument("--hidden", type=int, default=1024)
    p.add_argument("--layers", type=int, default=8)
    p.add_argument("--batch", type=int, default=32, help="rows per rank and micro-batch")
    p.add_argument("--bucket-cap-mb", type=float, default=10)
    p.add_argument("--accumulate", type=int, default=1, metavar="K")
    run(train, p.parse_args())


if __name__ == "__main__":
    main()
