"""FSDP2 (fully_shard) on a stack of feed-forward blocks: parameters are gathered, gradients scattered.

Run:      torchrun --nproc-per-node 2 samples/fsdp2.py
Options:  --hidden, --layers and --batch set the size; --no-reshard keeps the parameters of a block
          between forward and backward, which saves the second all-gather and costs memory.
"""

from argparse import Namespace

import torch
import torch.distributed as dist
from common import StepLog, parser, run
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard


class Block(nn.Module):
    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(hidden)
        self.up = nn.Linear(hidden, 4 * hidden)
        self.down = nn.Linear(4 * hidden, hidden)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.down(nn.functional.gelu(self.up(self.norm(x))))


class Model(nn.Module):
    def __init__(self, vocab: int, hidden: int, layers: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocab, hidden)
        self.blocks = nn.ModuleList(Block(hidden) for _ in range(layers))
        self.head = nn.Linear(hidden, vocab)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.embed(tokens).flatten(0, 1)  # no attention here: every token stands alone
        for block in self.blocks:
            x = block(x)
        return self.head(x)


def train(args: Namespace, device: torch.device) -> None:
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    torch.manual_seed(args.seed)  # the same full model on every rank, before it is sharded
    model = Model(args.vocab, args.hidden, args.layers).to(device)
    for block in model.blocks:
        fully_shard(block, mesh=mesh, reshard_after_forward=not args.no_reshard)
    fully_shard(model, mesh=mesh)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

    torch.manual_seed(args.seed + 1 + dist.get_rank())  # every rank draws its own data
    log = StepLog(args.steps)
    for step in range(args.steps):
        tokens = torch.randint(args.vocab, (args.batch, args.length), device=device)
        target = (tokens * 7 + 1) % args.vocab
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(tokens), target.flatten())
        loss.backward()
        optimizer.step()
        log.step(step, loss)

    log.finish(model.parameters(), args.digest)


def main() -> None:
    p = parser(__doc__, steps=50)
    p.add_argument("--hidden", type=int, default=256)
    p.add_argument("--layers", type=int, default=6)
    p.add_argument("--batch", type=int, default=4, help="sequences per rank")
    p.add_argument("--length", type=int, default=32, help="tokens per sequence")
    p.add_argument("--vocab", type=int, default=512)
    p.add_argument("--no-reshard", action="store_true")
    run(train, p.parse_args())


if __name__ == "__main__":
    main()
