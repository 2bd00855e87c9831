"""A training loop on emulated hosts: the traffic is real, computing is sleeping.

Each step: compute, the pair groups' all_reduces in turn, the world's all_reduces (after the computation, or begun
during it with --overlap), a loss of four bytes, a small backward and a real optimizer's step.
`lab.hosts` launches it.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import time
from contextlib import suppress

import torch
import torch.distributed as dist


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--compute-ms", type=float, default=15.0)
    parser.add_argument("--jitter-ms", type=float, default=0.5, help="each rank computes up to this much longer")
    parser.add_argument("--world-bytes", type=int, nargs="*", default=[], help="sizes of the world's all_reduces")
    parser.add_argument("--pair-bytes", type=int, default=0, help="size of each pair of hosts' all_reduce; 0 for none")
    parser.add_argument("--overlap", action="store_true", help="begin the world's all_reduces while computing")
    parser.add_argument("--slow-hosts", type=int, nargs="*", default=[])
    parser.add_argument("--slow-ranks", type=int, nargs="*", default=[])
    parser.add_argument("--extra-ms", type=float, default=0.0, help="what the slow ones compute longer")
    parser.add_argument("--uneven", action="store_true", help="another rank computes --extra-ms longer each step")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def rounds(hosts: int) -> list[list[tuple[int, int]]]:
    """All pairs of hosts, in rounds in which no host is in two pairs (a round-robin tournament)."""
    seats = [*range(hosts), *([None] if hosts % 2 else [])]
    found = []
    for _ in range(len(seats) - 1):
        facing = zip(seats[: len(seats) // 2], reversed(seats), strict=False)
        found.append([(min(a, b), max(a, b)) for a, b in facing if a is not None and b is not None])
        seats = [seats[0], seats[-1], *seats[1:-1]]
    return found


class Job:
    """One rank."""

    def __init__(self, chosen: argparse.Namespace) -> None:
        self.chosen, self.rank, self.size = chosen, dist.get_rank(), dist.get_world_size()
        self.per_host = int(os.environ["LOCAL_WORLD_SIZE"])
        self.random = random.Random(f"{chosen.seed}/{self.rank}")
        self.together = random.Random(chosen.seed)  # draws the same on every rank
        self.parameter = torch.nn.Parameter(torch.ones(256))
        self.optimizer = torch.optim.SGD([self.parameter], lr=1e-3)
        self.tensors = [torch.zeros(size // 4) for size in chosen.world_bytes]
        self.pair_tensor = torch.zeros(chosen.pair_bytes // 4)
        self.pairs = self._pair_groups() if chosen.pair_bytes else []

    def _pair_groups(self) -> list[dist.ProcessGroup]:
        """This rank's groups of one rank of each of two hosts, in the order of `rounds`.

        A rank is in one at a time, so each pair has its hosts' links to itself, and in a healthy job none waits.
        """
        groups = []
        for pair in itertools.chain(*rounds(self.size // self.per_host)):
            ranks = [host * self.per_host for host in pair]
            group = dist.new_group(ranks)
            if self.rank in ranks:
                groups.append(group)
        return groups

    def step(self) -> None:
        """One training step."""
        if self.chosen.overlap:
            self._compute_and_reduce()
        else:
            time.sleep(self._compute_s())
        for group in self.pairs:
            dist.all_reduce(self.pair_tensor, group=group)
        if not self.chosen.overlap:
            for tensor in self.tensors:
                dist.all_reduce(tensor)
        loss = self.parameter.square().mean()
        loss.backward()
        dist.all_reduce(loss.detach().clone())
        self.optimizer.step()
        self.optimizer.zero_grad()

    def _compute_and_reduce(self) -> None:
        """Like a backward: each all_reduce begins after its share of the computation."""
        share = self._compute_s() / (len(self.tensors) + 1)
        works = []
        for tensor in self.tensors:
            time.sleep(share)
            works.append(dist.all_reduce(tensor, async_op=True))
        time.sleep(share)
        for work in works:
            work.wait()

    def _compute_s(self) -> float:
        chosen = self.chosen
        slow = self.rank in chosen.slow_ranks or self.rank // self.per_host in chosen.slow_hosts
        if chosen.uneven:
            slow = self.together.randrange(self.size) == self.rank
        return (chosen.compute_ms + slow * chosen.extra_ms + self.random.random() * chosen.jitter_ms) / 1e3


def main() -> None:
    torch.set_num_threads(1)
    chosen = options()
    # Other work on this machine must not slow the emulated hosts; Gloo's threads inherit it.
    with suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    dist.init_process_group("gloo")
    job = Job(chosen)
    dist.barrier()
    for _ in range(chosen.steps):
        job.step()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
