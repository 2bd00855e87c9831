"""Tensor parallelism with DTensor: every block is split over all ranks and all-reduces its activations.

Run:      torchrun --nproc-per-node 2 samples/tensor_parallel.py
Options:  --hidden (a multiple of the number of ranks), --layers and --batch set the size.
The all-reduces lie on the critical path: nothing else is left to compute while one runs.
"""

from argparse import Namespace

import torch
import torch.distributed as dist
from common import StepLog, parser, run
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module


class Block(nn.Module):
    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(hidden)
        self.up = nn.Linear(hidden, 4 * hidden)
        self.down = nn.Linear(4 * hidden, hidden)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.down(nn.functional.gelu(self.up(self.norm(x))))


def train(args: Namespace, device: torch.device) -> None:
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    torch.manual_seed(args.seed)
    model = nn.Sequential(*(Block(args.hidden) for _ in range(args.layers))).to(device)
    for block in model:
        parallelize_module(block, mesh, {"up": ColwiseParallel(), "down": RowwiseParallel()})
    # foreach=False: the norms are plain tensors, and a foreach kernel cannot mix them with DTensors.
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, foreach=False)

    torch.manual_seed(args.seed + 1)  # all ranks work on the same rows
    log = StepLog(args.steps)
    for step in range(args.steps):
        x = torch.randn(args.batch, args.hidden, device=device)
        y = x.roll(1, dims=1)
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(x), y)
        loss.backward()
        optimizer.step()
        log.step(step, loss)

    log.finish(model.parameters(), args.digest)


def main() -> None:
    p = parser(__doc__, steps=50)
    p.add_argument("--hidden", type=int, default=512)
    p.add_argument("--layers", type=int, default=4)
    p.add_argument("--batch", type=int, default=128, help="rows, the same on every rank")
    run(train, p.parse_args())


if __name__ == "__main__":
    main()
