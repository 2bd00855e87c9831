"""A job of blocking collectives whose every wait is known: each rank works, all meet, bytes move.

work | wait until the last has come | transfer | work | ... | optimizer
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from synthetic import MS, START, UNNUMBERED, US, Collective, Phase, RankTruth

Ints = NDArray[np.int64]


@dataclass
class BlockingJob:
    """What was planned and what follows from it; times in ns on one true clock.

    Attributes:
        work: own time before each collective, shape (ranks, steps, collectives).
        transfer: of each collective, shape (collectives,).
        hosts: host of each rank; one for all where empty.
        offset: what each rank's clock shows more than the true one.
        drift: the same, per ns since START.
        issued: shape of `work`.
        ends: shape of `work`.
    """

    work: Ints
    transfer: Ints
    hosts: Sequence[str] = ()
    offset: Sequence[int] = ()
    drift: Sequence[float] = ()
    bytes: Sequence[int] = ()
    op: str = "all_reduce"
    optimizer_ns: int = 5 * MS
    numbered: bool = True
    issued: Ints = field(init=False)
    ends: Ints = field(init=False)
    wait: Ints = field(init=False)

    def __post_init__(self) -> None:
        ranks, steps, count = self.work.shape
        self.issued, self.ends = np.zeros_like(self.work), np.zeros_like(self.work)
        now = np.full(ranks, START, np.int64)
        for step in range(steps):
            for k in range(count):
                self.issued[:, step, k] = now + self.work[:, step, k]
                now = np.full(ranks, self.issued[:, step, k].max() + self.transfer[k])
                self.ends[:, step, k] = now
            now = now + self.optimizer_ns
        self.wait = self.issued.max(axis=0) - self.issued

    def clock(self, rank: int, times: Ints) -> Ints:
        """True times as the rank's clock shows them."""
        offset = self.offset[rank] if len(self.offset) else 0
        drift = self.drift[rank] if len(self.drift) else 0.0
        return times + offset + np.round((times - START) * drift).astype(np.int64)

    def truths(self) -> dict[int, RankTruth]:
        """What every rank records."""
        return {rank: self._truth(rank) for rank in range(self.work.shape[0])}

    def _truth(self, rank: int) -> RankTruth:
        ranks, steps, count = self.work.shape
        issued, ends = self.clock(rank, self.issued[rank]), self.clock(rank, self.ends[rank])
        sizes = list(self.bytes) or [4096] * count
        rows = [
            Collective(
                int(issued[s, k]),
                int(ends[s, k]),
                waited_ns=int(issued[s, k]),
                blocked_ns=int(ends[s, k] - issued[s, k]),
                op=self.op,
                in_bytes=sizes[k],
                out_bytes=sizes[k],
                group_size=ranks,
                seq=s * count + k if self.numbered else UNNUMBERED,
            )
            for s in range(steps)
            for k in range(count)
        ]
        phases = []
        begin = self.clock(rank, np.array([START], np.int64))[0]
        for s in range(steps):
            end = int(self.clock(rank, self.ends[rank, s, -1:] + self.optimizer_ns)[0])
            phases.append(Phase("backward", int(begin), int(ends[s, -1])))
            phases.append(Phase("optimizer", int(ends[s, -1]), end, "AdamW"))
            begin = end
        host = self.hosts[rank] if len(self.hosts) else "host"
        group = {"name": "0", "desc": "default_pg", "ranks": list(range(ranks)), "size": ranks, "workers": 2}
        ended = {"how": "exit", "ns": end}
        return RankTruth(
            rows, phases, info={"host": host, "boot_id": f"boot of {host}", "groups": [group], "end": ended}
        )


def even_job(ranks: int = 4, steps: int = 22, count: int = 3, seed: int = 0, **options: object) -> BlockingJob:
    """Ranks with the same work but for some microseconds: nobody is to blame for anything."""
    draw = np.random.default_rng(seed)
    work = 30 * MS + draw.integers(0, 300 * US, (ranks, steps, count))
    return BlockingJob(work, np.full(count, 2 * MS), **options)  # type: ignore[arg-type]


def slower(job: BlockingJob, rank: int, ns: int) -> BlockingJob:
    """The same job with a rank that works longer before the first collective of every step."""
    work = job.work.copy()
    work[rank, :, 0] += ns
    return replace(job, work=work)
