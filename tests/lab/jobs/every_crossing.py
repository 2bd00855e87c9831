"""Says what each operation moves over the host's link, as a share of its message: [op, root, sent, received] a line."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist

INTERFACE = "lab0"
BYTES = 600_000
TIMES = 5


def on_link() -> tuple[int, int]:
    """Bytes sent and received on the link since it came up."""
    lines = Path("/proc/net/dev").read_text(encoding="ascii").splitlines()
    numbers = next(line for line in lines if line.strip().startswith(f"{INTERFACE}:")).partition(":")[2].split()
    return int(numbers[8]), int(numbers[0])


def operations(rank: int, ranks: int) -> dict[tuple[str, int], Callable[[], object]]:
    whole, part = torch.zeros(BYTES // 4), torch.zeros(BYTES // 4 // ranks)
    parts = [torch.zeros_like(part) for _ in range(ranks)]
    found: dict[tuple[str, int], Callable[[], object]] = {
        ("all_reduce", 0): lambda: dist.all_reduce(whole),
        ("all_gather", 0): lambda: dist.all_gather_into_tensor(torch.zeros_like(whole), part),
        ("reduce_scatter", 0): lambda: dist.reduce_scatter_tensor(torch.zeros_like(part), whole),
        ("all_to_all", 0): lambda: dist.all_to_all_single(torch.zeros_like(whole), whole),
    }
    for root in (0, ranks - 1):
        found |= {
            ("broadcast", root): lambda root=root: dist.broadcast(whole, root),
            ("reduce", root): lambda root=root: dist.reduce(whole, root),
            ("gather", root): lambda root=root: dist.gather(part, parts if rank == root else None, root),
            ("scatter", root): lambda root=root: dist.scatter(part, parts if rank == root else None, root),
        }
    return found


def settled() -> tuple[int, int]:
    """The link's bytes when everybody has ended and the last acknowledgements are over."""
    dist.barrier()
    time.sleep(0.05)
    found = on_link()
    dist.barrier()
    return found


def main() -> None:
    dist.init_process_group("gloo")
    rank, ranks = dist.get_rank(), dist.get_world_size()
    for (name, root), run in operations(rank, ranks).items():
        run()
        before = settled()
        for _ in range(TIMES):
            run()
        after = settled()
        moved = [(now - then) / TIMES / BYTES for now, then in zip(after, before, strict=True)]
        print(json.dumps([name, root, *moved]))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
