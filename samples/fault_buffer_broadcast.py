"""Planted fault: DDP sends rank 0's buffers (running means of normalisation layers) to all before each forward.

Run:      torchrun --nproc-per-node 2 samples/fault_buffer_broadcast.py
Options:  --fixed leaves each rank its own buffers; --buffer sets the elements of the table that each layer has besides;
          --hidden, --layers and --batch set the size.
"""

from argparse import Namespace

import torch
from common import run
from planted import Layer, ddp, fit, options
from torch import nn


class Normed(Layer):
    """A layer with a BatchNorm and a table of constants, which are buffers too."""

    def __init__(self, hidden: int, buffer: int) -> None:
        super().__init__(hidden)
        self.norm = nn.BatchNorm1d(hidden)
        self.register_buffer("table", torch.zeros(buffer))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(self.norm(x)) + self.table[0]


def train(args: Namespace, device: torch.device) -> None:
    torch.manual_seed(args.seed)
    model = nn.Sequential(*(Normed(args.hidden, args.buffer) for _ in range(args.layers))).to(device)
    fit(ddp(model, device, broadcast_buffers=not args.fixed), args, device)


def main() -> None:
    p = options(__doc__, hidden=128, layers=24, batch=64)
    p.add_argument("--buffer", type=int, default=100_000)
    run(train, p.parse_args())


if __name__ == "__main__":
    main()
