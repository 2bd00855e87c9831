"""Runs of which only sums were kept, with ranks, hosts and groups that are slow on purpose.

Ranks of a host make a group "tp<host>" and meet in it all the time; ranks of the same place on all hosts make a group
"dp<place>" and meet once a step. Work and transfers are drawn, so that only what is planted is systematic.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from synthetic import MS, START, US

from commlens.trace import RankWriter, write_run_info
from commlens.trace.aggregates import aggregated
from commlens.trace.schema import DTYPES, OPS, PHASES

Ints = NDArray[np.int64]
INNER = 4  # collectives a step within a host
ONLY = {"quota_bytes": 0, "from_step": 0}


@dataclass(frozen=True)
class AggregatedJob:
    """What is planted; times in ns.

    Attributes:
        hosts: of the job.
        per_host: ranks of each.
        steps: of the job.
        late: ranks that work `late_ns` longer in each step.
        later: how much longer others work.
        slow_groups: hosts whose group takes four times as long to move its bytes.
        known_steps: the job has an optimizer, which says where steps end.
        noise_ns: work of each step is longer by up to so much, each rank another.
    """

    hosts: int = 4
    per_host: int = 4
    steps: int = 200
    late: Collection[int] = ()
    late_ns: int = 3 * MS
    later: Mapping[int, int] = field(default_factory=dict)
    slow_groups: Collection[int] = ()
    known_steps: bool = True
    noise_ns: int = 200 * US
    seed: int = 0

    @property
    def ranks(self) -> int:
        return self.hosts * self.per_host

    def write(self, path: Path, ranks: Collection[int] | None = None, **run: Any) -> Path:
        """Writes a run folder of these ranks, all when not given, and returns it."""
        issued, ended, optimizer = self._times()
        head = {"run_id": "aggregated", "world_size": self.ranks}
        write_run_info(path, {**head, "start_ns": START, "backend": "gloo", "torch": "2.13.0", **run})
        for rank in range(self.ranks) if ranks is None else ranks:
            writer = RankWriter(path, rank)
            writer.write_info(head | self._info(rank))
            collectives = self._columns(rank, issued[rank], ended[rank])
            phases = _phases(optimizer[rank]) if self.known_steps else None
            for table, columns in aggregated(collectives, phases).items():
                writer.append(table, columns)
            writer.close()
        return path

    def _times(self) -> tuple[Ints, Ints, Ints]:
        """Issue and end of each collective, shape (ranks, steps, INNER + 1), and the optimizer's end."""
        draw = np.random.default_rng(self.seed)
        shape = (self.ranks, self.steps, INNER + 1)
        issued, ended, optimizer = np.zeros(shape, np.int64), np.zeros(shape, np.int64), np.zeros(shape[:2], np.int64)
        host = np.arange(self.ranks) // self.per_host
        inner = np.where(np.isin(host, list(self.slow_groups)), 4 * MS, MS)
        now = np.full(self.ranks, START, np.int64)
        longer = np.where(np.isin(np.arange(self.ranks), list(self.late)), self.late_ns, 0)
        longer[list(self.later)] = list(self.later.values())
        for step in range(self.steps):
            for k in range(INNER + 1):
                now = now + 4 * MS + draw.integers(0, self.noise_ns, self.ranks) + (longer if k == 0 else 0)
                issued[:, step, k] = now
                table = now.reshape(self.hosts, self.per_host)
                last = table.max(axis=1 if k < INNER else 0, keepdims=True)
                now = np.broadcast_to(last, table.shape).ravel() + (inner if k < INNER else 2 * MS)
                ended[:, step, k] = now
            now = now + 2 * MS
            optimizer[:, step] = now
        return issued, ended, optimizer

    def _columns(self, rank: int, issued: Ints, ended: Ints) -> dict[str, Any]:
        count, k = issued.size, np.tile(np.arange(INNER + 1), self.steps)
        step = np.arange(self.steps).repeat(INNER + 1)
        outer = (k == INNER).astype(np.int64)
        sizes = np.where(outer, 8_000_000, 1_000_000)
        starts, ends = issued.ravel(), ended.ravel()
        names = [f"tp{rank // self.per_host}", f"dp{rank % self.per_host}"]
        return {
            "group": (outer, names),
            "op": (np.full(count, OPS.index("all_reduce")), list(OPS)),
            "dtype": (np.full(count, DTYPES.index("float32")), list(DTYPES)),
            "seq": np.where(outer, step, step * INNER + k),
            "in_bytes": sizes,
            "out_bytes": sizes,
            "step": step if self.known_steps else np.zeros_like(step),
            "issued_ns": starts,
            "completed_ns": ends,
            "waited_ns": starts,
            "blocked_ns": ends - starts,
        }

    def _info(self, rank: int) -> dict[str, Any]:
        host, place = divmod(rank, self.per_host)
        inner = [host * self.per_host + each for each in range(self.per_host)]
        outer = [each * self.per_host + place for each in range(self.hosts)]
        groups = [
            {"name": name, "desc": desc, "ranks": members, "size": len(members), "backend": "gloo", "workers": 2}
            for name, desc, members in (
                (f"tp{host}", "tensor parallel", inner),
                (f"dp{place}", "data parallel", outer),
            )
        ]
        own = {"host": f"host{host}", "boot_id": f"boot{host}", "groups": groups, "aggregates": ONLY}
        return {"rank": rank, **own, "end": {"how": "exit", "ns": START}}


def _phases(optimizer: Ints) -> dict[str, Any]:
    count = optimizer.size
    return {
        "phase": (np.full(count, PHASES.index("optimizer")), list(PHASES)),
        "start_ns": optimizer - 2 * MS,
        "end_ns": optimizer,
        "step": np.arange(count),
    }
