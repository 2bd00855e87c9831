"""DDP without torchrun: torch.multiprocessing.spawn starts the ranks, a DataLoader worker makes the data.

Run:      python samples/spawn.py --nprocs 2
Options:  --hidden, --layers and --batch set the size, --port the port to meet on (0: any free one).
Every rank has a DataLoader process beside it, which takes no part in the communication.
"""

import os
import socket
from argparse import Namespace

import torch
from common import StepLog, parser, run
from torch import multiprocessing, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset, DistributedSampler


class Rows(Dataset):
    """Random rows that depend on their index alone."""

    def __init__(self, length: int, hidden: int, seed: int) -> None:
        self.length, self.hidden, self.seed = length, hidden, seed

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        x = torch.randn(self.hidden, generator=torch.Generator().manual_seed(self.seed + index))
        return x, x.roll(1)


class Layer(nn.Module):
    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.linear = nn.Linear(hidden, hidden)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + nn.functional.gelu(self.linear(x))


def train(args: Namespace, device: torch.device) -> None:
    torch.manual_seed(args.seed)
    model = nn.Sequential(*(Layer(args.hidden) for _ in range(args.layers))).to(device)
    model = DistributedDataParallel(model, device_ids=[device] if device.type == "cuda" else None)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

    data = Rows(args.steps * args.batch * args.nprocs, args.hidden, args.seed)
    sampler = DistributedSampler(data, seed=args.seed)
    loader = DataLoader(data, args.batch, sampler=sampler, num_workers=1, pin_memory=device.type == "cuda")

    log = StepLog(args.steps)
    for step, (x, y) in enumerate(loader):
        x, y = x.to(device, non_blocking=True), y.to(device, non_blocking=True)
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(x), y)
        loss.backward()
        optimizer.step()
        log.step(step, loss)

    log.finish(model.parameters(), args.digest)


def start(rank: int, args: Namespace) -> None:
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank))
    run(train, args)


def main() -> None:
    p = parser(__doc__, steps=60)
    p.add_argument("--nprocs", type=int, default=2, help="ranks to start")
    p.add_argument("--hidden", type=int, default=512)
    p.add_argument("--layers", type=int, default=6)
    p.add_argument("--batch", type=int, default=128, help="rows per rank")
    p.add_argument("--port", type=int, default=0)
    args = p.parse_args()

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = args.port or free.getsockname()[1]
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    os.environ.update(WORLD_SIZE=str(args.nprocs), LOCAL_WORLD_SIZE=str(args.nprocs))
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # as torchrun does
    multiprocessing.spawn(start, args=(args,), nprocs=args.nprocs)


if __name__ == "__main__":
    main()
