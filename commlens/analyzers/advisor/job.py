"""A job as the techniques' conditions see it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from commlens.analyzers.findings.context import Context
from commlens.analyzers.numerals import plain
from commlens.analyzers.own_work import GAPS, HOST_BOUND
from commlens.analyzers.report import Finding, Report
from commlens.analyzers.whatif.asked import Simulator
from commlens.analyzers.whatif.optimum import Optimum, best_cap
from commlens.trace.change_values import Value
from commlens.trace.changes import Change

_HALF = ("float16", "bfloat16")


@dataclass(frozen=True)
class Share:
    """Some of the job's collectives, mean over ranks: how many a step, their bytes, and what is exposed of them, ms."""

    count: float
    bytes: float
    exposed_ms: float


@dataclass(frozen=True)
class Job:
    """A report, and what it was made of.

    Attributes:
        report: without advice.
        context: what its findings rest on.
        make_simulator: that of the same run.
    """

    report: Report
    context: Context
    make_simulator: Callable[[], Simulator]

    @property
    def infos(self) -> Mapping[int, Mapping[str, Any]]:
        """rank.json of each rank."""
        return self.context.infos

    @property
    def simulator(self) -> Simulator:
        """Of the same run."""
        return self.make_simulator()

    @property
    def step_ms(self) -> float:
        """Median step, ms; 0 where there are no steps."""
        return self.report.time_budget.step_ms or 0.0

    @property
    def exposed_ms(self) -> float | None:
        """Communication that compute does not hide, without what waits for late ranks; None where not known."""
        budget = self.report.time_budget
        return budget.exposed_transfer_ms

    @property
    def wait_ms(self) -> float | None:
        """Standing still for late ranks."""
        return self.report.time_budget.exposed_wait_ms

    @property
    def idle(self) -> float:
        """Share of the step in which devices stand still, but not for communication."""
        parts = self.report.time_budget.other_parts_ms or {}
        return sum(parts.get(name, 0.0) for name in (HOST_BOUND, GAPS)) / self.step_ms if self.step_ms else 0.0

    def percent(self, ms: float) -> str:
        """Of the step, as people read it."""
        return f"{100 * ms / self.step_ms:.1f} % of the step" if self.step_ms else f"{plain(ms)} ms"

    def finding(self, *ids: str) -> Finding | None:
        """The costliest finding of these."""
        return next((each for each in self.report.findings if each.id in ids), None)

    @cached_property
    def backends(self) -> frozenset[str]:
        """Of the process groups: nccl, gloo, ..."""
        said = [g.get("backend") for info in self.infos.values() for g in info.get("groups") or []]
        return frozenset(
            part.partition(":")[2] or part for each in [*said, self.report.run.backend] for part in str(each).split(",")
        ) - {"None", ""}

    @property
    def on_gpus(self) -> bool:
        """Whether tensors lie on devices."""
        return bool(self.report.device_lanes) or any(i.get("device") not in (None, "cpu") for i in self.infos.values())

    @property
    def hosts(self) -> int:
        """That are known by name."""
        return len(self.report.run.hosts)

    @property
    def link_gb_s(self) -> float | None:
        """Bandwidth of the slowest link that messages between hosts were fitted to, else of any; None unknown."""
        known = [line for line in self.report.cost_model if line.bandwidth_gb_s is not None]
        between = [line for line in known if line.scope == "inter-node"] or known
        return min((line.bandwidth_gb_s for line in between if line.bandwidth_gb_s), default=None)

    def share(self, *ops: str, below: float | None = None) -> Share:
        """What these operations (all where none is named) are per step.

        Args:
            below: bytes; larger messages are left out.
        """
        ranks = max(len(self.report.run.ranks_present), 1)
        count = moved = exposed = 0.0
        for line in self.report.collectives:
            if (ops and line.op not in ops) or (below is not None and (line.bytes or 0) >= below):
                continue
            part = min((line.group_size or ranks) / ranks, 1.0) * (line.count_per_step or 0.0)
            count += part
            moved += part * (line.bytes or 0)
            exposed += line.exposed_ms_per_step or 0.0
        return Share(count, moved, exposed)

    @cached_property
    def half_share(self) -> float:
        """Share of the bytes of gradients that are sent with 16 bits an element, 0..1; 1 where none are seen.

        Gradients are what DDP's group all-reduces, what FSDP scatters, and of other jobs what either does.
        """
        ddp, sharded = self.model("DDP"), self.model("FSDP2", "FSDP")
        ops = ("all_reduce",) if ddp else ("reduce_scatter",) if sharded else ("all_reduce", "reduce_scatter")
        group = ddp.get("group") if ddp else None
        lines = [each for each in self.report.collectives if each.op in ops and group in (None, each.group)]
        moved = [((line.bytes or 0) * (line.count_per_step or 0.0), line.dtype in _HALF) for line in lines]
        total = sum(size for size, _ in moved)
        return sum(size for size, half in moved if half) / total if total else 1.0

    @cached_property
    def best_cap(self) -> Optimum | str:
        """The cap that is best for DDP's buckets in the simulator, or why that cannot be told."""
        baseline = self.simulator.baseline
        if baseline is None or self.simulator.refusal is not None:
            return self.simulator.refusal or "the run cannot be simulated"
        return best_cap(baseline)

    @cached_property
    def models(self) -> tuple[Mapping[str, Any], ...]:
        """rank.json's entries of the first rank's models."""
        first = self.infos[min(self.infos)] if self.infos else {}
        return tuple(each for each in first.get("models") or [] if isinstance(each, dict))

    def model(self, *kinds: str) -> Mapping[str, Any] | None:
        """The first model of one of these kinds: "DDP", "FSDP2", ..."""
        return next((each for each in self.models if each.get("kind") in kinds), None)

    def flag(self, name: str) -> Any:
        """What DDP was asked for; None where it is not known."""
        model = self.model("DDP")
        return (model.get("flags") or {}).get(name) if model is not None else None

    def accepts(self, kind: str, argument: str) -> bool | None:
        """Whether the job's torch has such an argument or method; None where that was not recorded."""
        known = (self.model(kind) or {}).get("accepts") or []
        return argument in known if known else None


def change(name: str, value: Value) -> tuple[Change, ...]:
    """A set of one change."""
    return (Change(name, value),)
