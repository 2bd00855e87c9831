"""The door: what would these changes gain?"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from commlens.analyzers.across.joined import Joined, join
from commlens.analyzers.across.transfers import Transfers, measured
from commlens.analyzers.held import HERE, Engine
from commlens.analyzers.ranks import RankFacts
from commlens.analyzers.read_ranks import read_ranks
from commlens.analyzers.whatif.altered import alter
from commlens.analyzers.whatif.answers import Replayed, Scenario, WhatIf
from commlens.analyzers.whatif.coefficients import Line
from commlens.analyzers.whatif.gates import (
    UNMEASURED,
    crowded,
    extrapolated,
    no_model,
    no_prediction,
    straggler_first,
    too_noisy,
    unsure_sharing,
)
from commlens.analyzers.whatif.model import Model
from commlens.analyzers.whatif.predicted import Baseline, predict, replay
from commlens.analyzers.whatif.ready import GradientTimes, read_gradients
from commlens.analyzers.whatif.recorded import recorded_model
from commlens.trace.changes import Change

if TYPE_CHECKING:
    from commlens.trace import Run
    from commlens.trace.calibration import Calibration

_CALIBRATED = "what is latency and what bandwidth comes from the calibration, scaled to the recorded transfers"
_BORROWED = "of an operation seen in one size, what is latency and what bandwidth is told by"
_SAME_COMPUTE = "compute is as fast beside communication as it was in the recording"


@dataclass(frozen=True)
class Simulator:
    """A run that can be simulated, or the reason why not, for any number of questions.

    Attributes:
        baseline: the recorded configuration; None where there is no model.
        refusal: why nothing is predicted.
        notes: what to know before trusting predictions.
    """

    baseline: Baseline | None
    refusal: str | None
    notes: tuple[str, ...]

    def scenario(self, changes: Sequence[Change]) -> Scenario:
        """What one set of changes would gain."""
        names = tuple(str(change) for change in changes)
        if self.baseline is None or self.refusal is not None:
            return Scenario(names, None, None, (), self.refusal)
        model = alter(self.baseline.model, changes)
        if isinstance(model, str):
            return Scenario(names, None, None, (), model)
        far = extrapolated(model)
        predicted, ceiling = predict(self.baseline, model, widen=model.widen * (2.0 if far else 1.0))
        if not all(map(math.isfinite, (predicted.gain_ms, predicted.low_ms, predicted.high_ms, ceiling))):
            return Scenario(names, None, None, model.assumptions, UNMEASURED)
        if noise := too_noisy(self.baseline, predicted.low_ms, predicted.high_ms):
            return Scenario(names, None, ceiling, model.assumptions, noise)
        if "transfer" in model.touches:
            rests = (unsure_sharing(self.baseline, model), *_origins(model), _SAME_COMPUTE, far)
            model = model.assuming(*(each for each in rests if each is not None))
        return Scenario(names, predicted, ceiling, model.assumptions, None)

    def replayed(self) -> Replayed:
        """Measured and simulated step of the recorded configuration."""
        if self.baseline is None:
            return Replayed(None, None)
        measured, replayed = self.baseline.measured_ns / 1e6, self.baseline.replayed_ns / 1e6
        return Replayed(round(measured, 6), round(replayed, 6) if math.isfinite(replayed) else None)


def _origins(model: Model) -> list[str]:
    """Where costs come from that the job's own transfers did not tell."""
    lines = [line for node in model.nodes for line in node.lines if isinstance(line, Line)]
    calibrated = [_CALIBRATED] if any(line.calibrated for line in lines) else []
    return [*calibrated, *(f"{_BORROWED} {each}" for each in sorted({line.borrowed for line in lines} - {""}))]


def find_simulator(
    ranks: Sequence[RankFacts],
    joined: Joined,
    transfers: Sequence[Transfers],
    infos: Mapping[int, Mapping[str, Any]],
    missing: Sequence[int] = (),
    gradients: Callable[[], Sequence[GradientTimes]] | None = None,
    calibration: Calibration | None = None,
) -> Simulator:
    """The simulator of a run.

    Args:
        ranks: stage one of each rank, ascending.
        joined: stage two of the same.
        transfers: see `across.transfers.measured`.
        infos: rank.json of each rank.
        missing: ranks that were not recorded.
        gradients: reads the table of gradients of each rank.
        calibration: where the job's own transfers do not tell latency from bandwidth.
    """
    if refusal := no_model(ranks, joined, missing):
        return Simulator(None, refusal, ())
    model = recorded_model(ranks, joined, transfers, infos, gradients() if gradients else None, calibration)
    if isinstance(model, str):
        return Simulator(None, model, ())
    shared = crowded(ranks, infos)
    baseline = replay(model, crowded=shared is not None)
    notes = [note for note in (straggler_first(joined), shared) if note]
    return Simulator(baseline, no_prediction(baseline), tuple(notes))


def simulator_of(run: Run, engine: Engine = HERE) -> Simulator:
    """The simulator of a recorded run."""
    ranks = read_ranks(run, engine)
    infos = {number: rank.info for number, rank in run.ranks.items()}
    joined = join(ranks)
    transfers, tables = measured(ranks, joined), partial(gradient_tables, run, engine)
    return find_simulator(ranks, joined, transfers, infos, run.absent, tables, run.calibration)


def gradient_tables(run: Run, engine: Engine) -> Sequence[GradientTimes]:
    """The table of gradients of each rank, ascending; empty ones where there are none."""
    return engine.keep(read_gradients, [run.ranks[number] for number in sorted(run.ranks)])


def what_if(simulator: Simulator, sets: Sequence[Sequence[Change]]) -> WhatIf:
    """What each set of changes would gain."""
    scenarios = tuple(simulator.scenario(each) for each in sets)
    return WhatIf(simulator.replayed(), scenarios, simulator.notes, simulator.refusal)
