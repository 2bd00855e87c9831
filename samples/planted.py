"""What the planted faults (fault_*.py) share: their options, a model, and a training loop."""

import argparse
from collections.abc import Callable

import torch
import torch.distributed as dist
from common import StepLog, parser
from torch import nn
from torch.nn.parallel import DistributedDataParallel


class Layer(nn.Module):
    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.linear = nn.Linear(hidden, hidden)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + 0.1 * nn.functional.gelu(self.linear(x))


def options(doc: str, hidden: int, layers: int, batch: int, steps: int = 40) -> argparse.ArgumentParser:
    """The options that every planted fault has."""
    p = parser(doc, steps)
    p.add_argument("--hidden", type=int, default=hidden)
    p.add_argument("--layers", type=int, default=layers)
    p.add_argument("--batch", type=int, default=batch, help="rows per rank")
    p.add_argument("--fixed", action="store_true", help="without the fault")
    return p


def stack(args: argparse.Namespace, device: torch.device) -> nn.Sequential:
    """The same layers on every rank."""
    torch.manual_seed(args.seed)
    return nn.Sequential(*(Layer(args.hidden) for _ in range(args.layers))).to(device)


def ddp(model: nn.Module, device: torch.device, **settings: object) -> DistributedDataParallel:
    return DistributedDataParallel(model, device_ids=[device] if device.type == "cuda" else None, **settings)


def plain_backward(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    loss = nn.functional.mse_loss(model(x), y)
    loss.backward()
    return loss.detach()


def fit(
    model: nn.Module,
    args: argparse.Namespace,
    device: torch.device,
    backward: Callable[[nn.Module, torch.Tensor, torch.Tensor], torch.Tensor] = plain_backward,
) -> None:
    """Trains a model; `backward` leaves the gradients of a batch and returns its loss."""
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    torch.manual_seed(args.seed + 1 + dist.get_rank())  # every rank draws its own data
    log = StepLog(args.steps)
    for step in range(args.steps):
        x = torch.randn(args.batch, args.hidden, device=device)
        optimizer.zero_grad()
        loss = backward(model, x, x.roll(1, dims=1))
        optimizer.step()
        log.step(step, loss)
    log.finish(model.parameters(), args.digest)
