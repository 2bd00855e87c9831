"""What the rules that look for causes are given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from commlens.analyzers.abstentions import name_ranks
from commlens.analyzers.across.joined import Joined
from commlens.analyzers.across.like import Usual, usual_transfers
from commlens.analyzers.across.transfers import Transfers
from commlens.analyzers.collective_line import CollectiveLine
from commlens.analyzers.contention import Contention
from commlens.analyzers.counted.busy import between_hosts
from commlens.analyzers.counted.gpus import GpuLine
from commlens.analyzers.counted.traffic import Traffic
from commlens.analyzers.findings.model import Model, read_models
from commlens.analyzers.ranks import RankFacts

if TYPE_CHECKING:
    from commlens.trace.calibration import Calibration

LEAST_SHARE = 0.02  # of a step; what costs less is no finding


@dataclass(frozen=True)
class Context:
    """A run as the rules see it.

    Attributes:
        ranks: stage one, ascending.
        joined: stage two.
        transfers: measured transfers of each communicator.
        lines: the collectives table.
        contention: compute kernels that run longer beside communication.
        calibration: measured peaks, None where there are none.
        missing: ranks of the job that were not recorded.
        infos: rank.json of each rank, by its number.
        run: run.json.
        source: the run's folder.
        traffic: counters of links beside the collectives, a host each; () where none were read.
        gpus: how fast each GPU ran, likewise.
    """

    ranks: Sequence[RankFacts]
    joined: Joined
    transfers: Sequence[Transfers]
    lines: Sequence[CollectiveLine]
    contention: Sequence[Contention]
    calibration: Calibration | None
    missing: Sequence[int]
    infos: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    run: Mapping[str, Any] = field(default_factory=dict)
    source: str = "RUN"
    traffic: Sequence[Traffic] = ()
    gpus: Sequence[GpuLine] = ()

    @cached_property
    def step_ms(self) -> float:
        """Median step over all ranks, ms; 0 where there are no steps."""
        lengths = [facts.steps.end_ns - facts.steps.start_ns for facts in self.ranks if facts.steps.index.size]
        return float(np.median(np.concatenate(lengths))) / 1e6 if lengths else 0.0

    @cached_property
    def usual(self) -> list[Usual]:
        """The usual transfer of every group, operation and size."""
        return usual_transfers(self.ranks, self.joined.exposed, self.transfers)

    @cached_property
    def between_hosts(self) -> Sequence[NDArray[np.bool_]]:
        """Which rows of each rank are of collectives between hosts, shape (rows,) each."""
        return between_hosts(self.ranks, self.joined)

    @cached_property
    def models(self) -> tuple[Model, ...]:
        """The model of each rank; () where some rank has none, or several."""
        return read_models(self.infos.get(facts.rank, {}) for facts in self.ranks)

    def matters(self, ms: float) -> bool:
        """Whether so much time a step is worth a finding."""
        return self.step_ms > 0 and ms >= LEAST_SHARE * self.step_ms

    def percent(self, ms: float) -> float:
        """Of the step."""
        return round(100 * ms / self.step_ms, 2) if self.step_ms else 0.0

    def numbers(self, positions: Sequence[int]) -> tuple[int, ...]:
        """Global ranks at positions."""
        return tuple(self.ranks[position].rank for position in positions)

    @cached_property
    def caveats(self) -> tuple[str, ...]:
        """What could make any comparison of ranks wrong in this run."""
        if not self.missing:
            return ()
        count, sampled = len(self.missing), self.run.get("sampled_ranks")
        which = f"{name_ranks(self.missing)} {'was' if count == 1 else 'were'} not recorded"
        if sampled and count > 1:
            which = f"{count:,} ranks were not recorded (COMMLENS_RANKS={sampled})"
        return (f"{which}: {'it' if count == 1 else 'one of them'} may be the rank that all wait for",)
