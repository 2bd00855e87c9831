"""Pipeline over all ranks, GPipe style: activations go forward by send/recv, gradients come back.

Run:      torchrun --nproc-per-node 2 samples/pipeline.py
Options:  --batched sends one micro-batch while it receives the next (batch_isend_irecv);
          --micro sets the number of micro-batches: the fewer, the larger the bubble;
          --hidden, --layers (per rank) and --batch (rows per micro-batch) set the size.
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


def exchange(out: torch.Tensor | None, dst: int, buf: torch.Tensor | None, src: int, batched: bool) -> None:
    """Send `out` to `dst`, then receive `buf` from `src`; either tensor may be missing."""
    if batched:
        ops = [] if out is None else [dist.P2POp(dist.isend, out, dst)]
        ops += [] if buf is None else [dist.P2POp(dist.irecv, buf, src)]
        for work in dist.batch_isend_irecv(ops) if ops else []:
            work.wait()
        return
    if out is not None:
        dist.send(out, dst)
    if buf is not None:
        dist.recv(buf, src)


def train(args: Namespace, device: torch.device) -> None:
    rank, last = dist.get_rank(), dist.get_world_size() - 1
    torch.manual_seed(args.seed + 1 + rank)  # every rank holds its own stage
    stage = nn.Sequential(*(Layer(args.hidden) for _ in range(args.layers))).to(device)
    optimizer = torch.optim.AdamW(stage.parameters(), lr=1e-3)
    data = torch.Generator(device).manual_seed(args.seed)  # same rows for the first rank and the last

    log = StepLog(args.steps)
    for step in range(args.steps):
        rows = torch.randn(args.micro, args.batch, args.hidden, generator=data, device=device)
        inputs = [row if rank == 0 else torch.empty_like(row) for row in rows]
        grads = [torch.empty_like(row) for row in rows]
        done = []
        loss = torch.zeros((), device=device)
        optimizer.zero_grad()
        exchange(None, -1, inputs[0] if rank > 0 else None, rank - 1, args.batched)
        for i in range(args.micro):
            x = inputs[i].requires_grad_(rank > 0)
            y = stage(x)
            done.append((x, y))
            following = inputs[i + 1] if rank > 0 and i + 1 < args.micro else None
            exchange(y.detach() if rank < last else None, rank + 1, following, rank - 1, args.batched)

        exchange(None, -1, grads[0] if rank < last else None, rank + 1, args.batched)
        for i, (x, y) in enumerate(done):
            if rank == last:
                part = nn.functional.mse_loss(y, rows[i].roll(1, dims=1)) / args.micro
                part.backward()
                loss += part.detach()
            else:
                y.backward(grads[i])
            following = grads[i + 1] if rank < last and i + 1 < args.micro else None
            exchange(x.grad if rank > 0 else None, rank - 1, following, rank + 1, args.batched)
        optimizer.step()
        if log.due(step):  # so far only the last rank knows the loss
            dist.broadcast(loss, src=last)
        log.step(step, loss)

    log.finish(stage.parameters(), args.digest)


def main() -> None:
    p = parser(__doc__, steps=100)
    p.add_argument("--hidden", type=int, default=512)
    p.add_argument("--layers", type=int, default=4, help="layers per rank")
    p.add_argument("--batch", type=int, default=64, help="rows per micro-batch")
    p.add_argument("--micro", type=int, default=4, help="micro-batches per step")
    p.add_argument("--batched", action="store_true")
    run(train, p.parse_args())


if __name__ == "__main__":
    main()
