"""What a lab job is told: the speed of its links and the faults planted in it, one JSON in LAB_PLAN."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import Any

VARIABLE = "LAB_PLAN"


@dataclass(frozen=True)
class Slow:
    """A slower link: every group that contains all of `ranks` (`exact`: that has no other rank) uses it.

    A collective takes `alpha_us` + the bytes through its busiest port / `gb_s` (1 GB = 1e9 bytes); what is
    None is that of the plan's link. Of several that apply the slowest counts.
    """

    ranks: tuple[int, ...]
    alpha_us: float | None = None
    gb_s: float | None = None
    exact: bool = False

    def applies(self, members: Collection[int]) -> bool:
        return set(self.ranks) == set(members) if self.exact else set(self.ranks) <= set(members)


@dataclass(frozen=True)
class Plan:
    """Links, jitter (share of a collective's time, drawn by seed and sequence number) and faults in the job.

    `faults` are planted in the ranks (`lab.lane`, `lab.jobs.common`), each a dict with "kind"; what else it has
    of "rank", "step", "phase", "name" says where it strikes. A `dry` link carries no bytes: Gloo aborts a process
    whose peer is gone or sends another size, but on a dry link, as with NCCL, everybody waits forever. On a `shared`
    one two collectives of a group at once (of kinds in which everybody takes part) run at half speed each.
    """

    alpha_us: float = 200.0
    gb_s: float = 0.05
    jitter: float = 0.0
    seed: int = 0
    slow: tuple[Slow, ...] = ()
    faults: tuple[dict[str, Any], ...] = ()
    dry: bool = False
    shared: bool = False

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    def alpha_beta(self, members: Collection[int]) -> tuple[float, float]:
        """Latency in ns and ns per byte of the link that a group with these global ranks uses."""
        which = [slow for slow in self.slow if slow.applies(members)]
        alpha = max([self.alpha_us, *(slow.alpha_us for slow in which if slow.alpha_us is not None)])
        gb_s = min([self.gb_s, *(slow.gb_s for slow in which if slow.gb_s is not None)])
        return alpha * 1e3, 1 / gb_s

    def cost_ns(self, members: Collection[int], port_bytes: float, name: str, seq: int) -> int:
        """Time from the last arrival to the end of the `seq`-th collective of the group called `name`."""
        alpha, beta = self.alpha_beta(members)
        draw = zlib.crc32(f"{self.seed}/{name}/{seq}".encode()) / 2**31 - 1
        return round((alpha + port_bytes * beta) * (1 + self.jitter * draw))


def port_bytes(op: str, size: int, in_bytes: int, out_bytes: int) -> float:
    """Bytes through the busiest port of a group of `size` ranks: bytes times nccl-tests' bus factor."""
    others = (size - 1) / size
    if op == "all_reduce":
        return 2 * others * in_bytes
    if op in ("all_gather", "reduce_scatter", "gather", "scatter", "all_to_all"):
        return others * max(in_bytes, out_bytes)
    return float(max(in_bytes, out_bytes))


def read_plan() -> Plan:
    """The plan in the environment; the default one where there is none."""
    raw = json.loads(os.environ.get(VARIABLE, "{}"))
    slow = tuple(Slow(**{**each, "ranks": tuple(each["ranks"])}) for each in raw.get("slow", ()))
    return Plan(**{**raw, "slow": slow, "faults": tuple(raw.get("faults", ()))})
