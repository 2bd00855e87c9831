"""Step time and gain of a changed model, with an interval: both terms from the simulator.

The bootstrap draws steps (jointly over ranks) and the coefficients of the cost model, the same draws for both terms.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from commlens.analyzers.grouped import Floats
from commlens.analyzers.intervals import Ints
from commlens.analyzers.report import Predicted
from commlens.analyzers.whatif.coefficients import DRAWS, SEED
from commlens.analyzers.whatif.model import FREE, Model
from commlens.analyzers.whatif.steady import LAPS, Batch, simulate

INTERVAL = (5.0, 95.0)  # percentiles
_WARP = 0.3  # spread of the logarithm by which gradients between two launches may come earlier or later
_LEAST_MISFIT = 0.01  # of the step: no model is better than this, nor do two runs of one job agree better
_MEDIAN = 1.2533  # standard error of a median over that of a mean, of a normal distribution


@dataclass(frozen=True)
class Baseline:
    """The recorded configuration, simulated.

    Attributes:
        model: the recorded one.
        batch: every step with the coefficients as they are, then one random step for each draw of them.
        resamples: for each draw, which steps it sees, shape (DRAWS, steps).
        noise_ns: for each draw, what two measurements and the model's misfit add to a gain, shape (DRAWS,).
        simulated_ns: of `batch`.
        measured_ns: median step, mean over the ranks.
        variation: standard deviation over median of the measured steps, without outliers.
    """

    model: Model
    batch: Batch
    resamples: Ints
    noise_ns: Floats
    simulated_ns: Floats
    measured_ns: float
    variation: float

    @property
    def steps(self) -> int:
        """Steps that were simulated."""
        return int(self.resamples.shape[1])

    @property
    def first(self) -> Batch:
        """Every step with the coefficients as they are."""
        batch, count = self.batch, self.steps
        return Batch(batch.steps[:count], batch.draws[:count], batch.warp[:count])

    @property
    def replayed_ns(self) -> float:
        """Median step of the simulation."""
        return float(np.median(self.simulated_ns[: self.steps]))

    @property
    def misfit(self) -> float:
        """By which share of the measured step the simulation is off."""
        return abs(self.replayed_ns / self.measured_ns - 1)


def replay(model: Model) -> Baseline:
    """Simulate the recorded configuration."""
    random = np.random.default_rng(SEED)
    steps = np.arange(LAPS - 1, model.steps)
    measured = model.step_ns.mean(axis=0)[steps]
    drawn = random.choice(steps, DRAWS)
    batch = Batch(
        steps=np.concatenate([steps, drawn]),
        draws=np.concatenate([np.zeros(steps.size, np.int64), np.arange(1, DRAWS + 1)]),
        warp=np.concatenate([np.ones(steps.size), np.exp(_WARP * random.standard_normal(DRAWS))]),
    )
    simulated, middle = simulate(model, batch), float(np.median(measured))
    usual = measured[np.abs(measured - middle) <= 4 * 1.4826 * np.median(np.abs(measured - middle)) + 1]
    off = max(abs(float(np.median(simulated[: steps.size])) - middle), _LEAST_MISFIT * middle)
    error = np.hypot(off, np.sqrt(2) * _MEDIAN * float(usual.std()) / np.sqrt(steps.size))
    return Baseline(
        model=model,
        batch=batch,
        resamples=random.integers(0, steps.size, (DRAWS, steps.size)),
        noise_ns=error * random.standard_normal(DRAWS),
        simulated_ns=simulated,
        measured_ns=middle,
        variation=float(usual.std()) / middle,
    )


def predict(baseline: Baseline, changed: Model, widen: float = 1.0) -> tuple[Predicted, float]:
    """What the changed model gains, and the most that such a change could gain (its ceiling, ms).

    Args:
        widen: what the interval is multiplied by.
    """
    after, ceiling = simulate(changed, baseline.batch), ceiling_ns(baseline, changed)
    before, count = baseline.simulated_ns, baseline.steps
    gain = min(baseline.replayed_ns - float(np.median(after[:count])), ceiling)
    resampled = np.median(before[baseline.resamples], axis=1) - np.median(after[baseline.resamples], axis=1)
    gains = before - after
    by_cost = gains[count:] - gains[baseline.batch.steps[count:] - (LAPS - 1)]
    spread = gain + widen * (resampled + by_cost + baseline.noise_ns - gain)
    low, high = np.percentile(spread, INTERVAL)
    predicted = Predicted(
        step_ms=_ms(max(baseline.measured_ns - gain, 0.0)),
        gain_ms=_ms(gain),
        low_ms=_ms(min(float(low), gain)),
        high_ms=_ms(min(max(float(high), gain), max(ceiling, gain))),
    )
    return predicted, _ms(ceiling)


def ceiling_ns(baseline: Baseline, changed: Model) -> float:
    """What would be gained if transfers cost nothing, or all ranks were as fast as the fastest at each point."""
    ideal = baseline.model
    if "wait" in changed.touches:
        ideal = replace(ideal, low_ns=_fastest(ideal.low_ns), high_ns=_fastest(ideal.high_ns))
    if "transfer" in changed.touches:
        ideal = replace(ideal, overlap=FREE)
    least = float(np.median(simulate(ideal, baseline.first))) - changed.spared_ns
    return max(baseline.replayed_ns - least, 0.0)


def _fastest(own_ns: Floats) -> Floats:
    return np.broadcast_to(own_ns.min(axis=1, keepdims=True), own_ns.shape)


def _ms(ns: float) -> float:
    return round(ns / 1e6, 6)
