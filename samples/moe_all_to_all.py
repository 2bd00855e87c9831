"""Mixture of experts, one expert per rank: tokens travel to their expert and back by uneven all-to-alls.

Run:      torchrun --nproc-per-node 2 samples/moe_all_to_all.py
Options:  --skew makes expert 0 more popular than the others (0: about even), so that rank 0 has more
          to compute and the others wait for it; --hidden, --layers and --tokens set the size.
"""

from argparse import Namespace

import torch
import torch.distributed as dist
from common import StepLog, parser, run
from torch import nn


class AllToAll(torch.autograd.Function):
    """Send send[i] rows to rank i and receive recv[i] rows from it; backward takes the way back."""

    @staticmethod
    def forward(ctx, x, recv, send):
        ctx.splits = send, recv
        out = x.new_empty(sum(recv), x.shape[1])
        dist.all_to_all_single(out, x.contiguous(), recv, send)
        return out

    @staticmethod
    def backward(ctx, grad):
        return AllToAll.apply(grad, *ctx.splits), None, None


class MoE(nn.Module):
    def __init__(self, hidden: int, skew: float) -> None:
        super().__init__()
        self.gate = nn.Linear(hidden, dist.get_world_size())
        with torch.no_grad():
            self.gate.bias[0] += skew
        self.expert = nn.Sequential(nn.Linear(hidden, 4 * hidden), nn.GELU(), nn.Linear(4 * hidden, hidden))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight, choice = self.gate(x).softmax(dim=1).max(dim=1)
        order = choice.argsort(stable=True)  # tokens of expert 0 first, then of expert 1, ...
        send = torch.bincount(choice, minlength=dist.get_world_size())
        recv = torch.empty_like(send)
        dist.all_to_all_single(recv, send)
        recv, send = recv.tolist(), send.tolist()
        out = self.expert(AllToAll.apply(x[order], recv, send))
        back = AllToAll.apply(out, send, recv)[order.argsort()]
        return x + weight[:, None] * back


def train(args: Namespace, device: torch.device) -> None:
    world = dist.get_world_size()
    torch.manual_seed(args.seed + 1 + dist.get_rank())  # every rank has its own expert and its own data
    model = nn.Sequential(*(MoE(args.hidden, args.skew) for _ in range(args.layers))).to(device)
    gates = [param for layer in model for param in layer.gate.parameters()]
    experts = [param for layer in model for param in layer.expert.parameters()]
    for param in gates:  # the gates are replicated
        dist.broadcast(param.data, src=0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

    log = StepLog(args.steps)
    for step in range(args.steps):
        x = torch.randn(args.tokens, args.hidden, device=device)
        y = x.roll(1, dims=1)
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(x), y)
        loss.backward()
        for param in gates:
            dist.all_reduce(param.grad)
        for param in gates + experts:  # an expert's gradient is already the sum over all ranks' tokens
            param.grad /= world
        optimizer.step()
        log.step(step, loss)

    log.finish(model.parameters(), args.digest)


def main() -> None:
    p = parser(__doc__, steps=60)
    p.add_argument("--hidden", type=int, default=256)
    p.add_argument("--layers", type=int, default=2)
    p.add_argument("--tokens", type=int, default=512, help="tokens per rank")
    p.add_argument("--skew", type=float, default=0.5)
    run(train, p.parse_args())


if __name__ == "__main__":
    main()
