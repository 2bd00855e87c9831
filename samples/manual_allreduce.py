"""Data parallelism by hand: after backward, one blocking all-reduce for each parameter's gradient.

Run:      torchrun --nproc-per-node 2 samples/manual_allreduce.py
Options:  --async starts all of the all-reduces and waits for them at the end;
          --hidden, --layers and --batch set the size.
A classic mistake: many small messages, and none of them runs while backward does.
"""

from argparse import Namespace

import torch
import torch.distributed as dist
from common import StepLog, parser, run
from torch import nn


class Layer(nn.Module):
    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(hidden)
        self.linear = nn.Linear(hidden, hidden)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + nn.functional.gelu(self.linear(self.norm(x)))


def average_gradients(model: nn.Module, overlap: bool) -> None:
    works = []
    for param in model.parameters():
        if overlap:
            works.append(dist.all_reduce(param.grad, async_op=True))
        else:
            dist.all_reduce(param.grad)
    for work in works:
        work.wait()
    for param in model.parameters():
        param.grad /= dist.get_world_size()


def train(args: Namespace, device: torch.device) -> None:
    torch.manual_seed(args.seed)  # the same seed gives every rank the same model
    model = nn.Sequential(*(Layer(args.hidden) for _ in range(args.layers))).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)

    torch.manual_seed(args.seed + 1 + dist.get_rank())  # every rank draws its own data
    log = StepLog(args.steps)
    for step in range(args.steps):
        x = torch.randn(args.batch, args.hidden, device=device)
        y = x.roll(1, dims=1)
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(x), y)
        loss.backward()
        average_gradients(model, args.overlap)
        optimizer.step()
        log.step(step, loss)

    log.finish(model.parameters(), args.digest)


def main() -> None:
    p = parser(__doc__, steps=100)
    p.add_argument("--hidden", type=int, default=256)
    p.add_argument("--layers", type=int, default=24)
    p.add_argument("--batch", type=int, default=64, help="rows per rank")
    p.add_argument("--async", dest="overlap", action="store_true")
    run(train, p.parse_args())


if __name__ == "__main__":
    main()
