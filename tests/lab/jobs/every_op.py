"""Every operation the link carries, checked for its result; some are timed by the recorder."""

from __future__ import annotations

import argparse
import datetime

import torch
import torch.distributed as dist
import torch.distributed._functional_collectives as functional
from lab import link
from lab.quiet import quiet
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.nn.parallel import DistributedDataParallel

QUEUED = 6


def same(found: torch.Tensor, expected: object) -> None:
    torch.testing.assert_close(found, torch.as_tensor(expected, dtype=found.dtype).expand_as(found))


def plain(rank: int, world: int) -> None:
    """Collectives as users call them."""
    total = sum(range(world))
    x = torch.full((64,), float(rank))
    dist.all_reduce(x)
    same(x, total)
    works = [dist.all_reduce(torch.ones(8), async_op=True) for _ in range(4)]
    for work in works:
        work.wait()
        same(work.get_future().value()[0], world)
    parts = [torch.empty(2) for _ in range(world)]
    dist.all_gather(parts, torch.full((2,), float(rank)))
    same(torch.stack(parts)[:, 0], list(range(world)))
    gathered = torch.empty(2 * world)
    dist.all_gather_into_tensor(gathered, torch.full((2,), float(rank)))
    same(gathered[::2], list(range(world)))
    part = torch.empty(2)
    dist.reduce_scatter_tensor(part, torch.arange(2.0 * world))
    same(part, [world * 2.0 * rank, world * (2.0 * rank + 1)])
    x = torch.full((3,), float(rank))
    dist.broadcast(x, src=1)
    same(x, 1)
    dist.reduce(x, dst=0)
    dist.barrier()


def exchanges(rank: int, world: int) -> None:
    """All-to-all, even and uneven, and messages in both directions."""
    out = torch.empty(world)
    dist.all_to_all_single(out, torch.full((world,), float(rank)))
    same(out, list(range(world)))
    out = torch.empty(world * (rank + 1))
    dist.all_to_all_single(
        out, torch.full((world * (world + 1) // 2,), float(rank)), [rank + 1] * world, list(range(1, world + 1))
    )
    same(out[:: rank + 1], list(range(world)))
    right, left = (rank + 1) % world, (rank - 1) % world
    inbox = torch.empty(5)
    sent, got = dist.isend(torch.full((5,), float(rank)), right), dist.irecv(inbox, left)
    got.wait()
    sent.wait()
    same(inbox, left)


def functionals(rank: int, world: int) -> None:
    """Functional collectives, and DTensor's."""
    reduced = functional.all_reduce(torch.full((4,), float(rank)), "sum", dist.group.WORLD)
    same(functional.wait_tensor(reduced), sum(range(world)))
    mesh = init_device_mesh("cpu", (world,))
    torch.manual_seed(0)
    block = nn.Sequential(nn.Linear(8, 4 * world), nn.Linear(4 * world, 8))
    x = torch.randn(2, 8)
    expected = block(x)
    parallelize_module(block, mesh, {"0": ColwiseParallel(), "1": RowwiseParallel()})
    torch.testing.assert_close(block(x), expected)


def models(rank: int, world: int) -> None:
    """DDP and FSDP2 arrive at the same gradients."""
    torch.manual_seed(0)
    single = nn.Linear(8, 8)
    for shard in (False, True):
        torch.manual_seed(0)
        model = nn.Linear(8, 8)
        if shard:
            fully_shard(model, mesh=init_device_mesh("cpu", (world,)))
        wrapped = model if shard else DistributedDataParallel(model)
        for _ in range(2):
            model.zero_grad()
            wrapped(torch.full((2, 8), float(rank))).square().mean().backward()
        single.zero_grad()
        for each in range(world):
            (single(torch.full((2, 8), float(each))).square().mean() / world).backward()
        gradient = model.weight.grad.full_tensor() if shard else model.weight.grad
        torch.testing.assert_close(gradient, single.weight.grad)


def timed(repeats: int, kib: int) -> None:
    """Blocking and asynchronous collectives of a known size, and at last some that wait for each other in the queue."""
    x = torch.zeros(kib * 256)
    for _ in range(repeats):
        dist.all_reduce(x)
        dist.all_reduce(x, async_op=True).wait()
        dist.all_to_all_single(torch.empty_like(x), x)
    for work in [dist.all_reduce(torch.zeros_like(x), async_op=True) for _ in range(QUEUED)]:
        work.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--kib", type=int, default=256)
    parser.add_argument("--plain", action="store_true", help="on Gloo as it is")
    args = parser.parse_args()
    if not args.plain:
        link.install()
    dist.init_process_group("gloo", timeout=datetime.timedelta(seconds=40))
    rank, world = dist.get_rank(), dist.get_world_size()
    quiet()
    dist.barrier() if args.plain else link.begin()
    for part in (plain, exchanges, functionals, models):
        part(rank, world)
    timed(args.repeats, args.kib)
    print(f"rank {rank} done", flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
