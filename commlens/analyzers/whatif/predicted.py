"""Step time and gain of a changed model, with an interval: both terms from the simulator.

The bootstrap draws steps (jointly over ranks) and the coefficients of the cost model, the same draws for both terms.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from commlens.analyzers.grouped import Floats
from commlens.analyzers.intervals import Ints
from commlens.analyzers.report import Predicted
from commlens.analyzers.whatif.coefficients import DRAWS, SEED
from commlens.analyzers.whatif.model import FREE, Model
from commlens.analyzers.whatif.node_costs import NodeCosts
from commlens.analyzers.whatif.steady import LAPS, Batch, simulate

INTERVAL = (5.0, 95.0)  # percentiles
_WARP = 0.3  # spread of the logarithm by which gradients between two launches may come earlier or later
# Of the step: no model is better than this, nor do two runs of one job agree better; where they share cores (the same
# job differed by up to 3.6 % from run to run).
_LEAST_MISFIT, _CROWDED_MISFIT = 0.01, 0.02
# Where ranks, Gloo's threads and the kernel's network stack share cores, both compute and transfers take longer while
# they overlap: by 10 to 70 % of that time together in what was measured (bench/whatif_hosts.py).
_SLOWED = 0.7
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
        slowed: for each draw, which share of the time in which compute and transfers overlap both lose to each other,
            shape (DRAWS,).
        hidden_ns: how long compute and transfers overlap; 0 where they do not share cores.
        ideal_ns: the least step that changes of a kind (`Model.touches`) could lead to, as far as it was asked for.
    """

    model: Model
    batch: Batch
    resamples: Ints
    noise_ns: Floats
    simulated_ns: Floats
    measured_ns: float
    variation: float
    slowed: Floats
    hidden_ns: float
    ideal_ns: dict[frozenset[str], float] = field(default_factory=dict, compare=False)

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


def replay(model: Model, crowded: bool = False) -> Baseline:
    """Simulate the recorded configuration.

    Args:
        crowded: whether compute and what moves bytes compete for cores.
    """
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
    first = Batch(batch.steps[: steps.size], batch.draws[: steps.size], batch.warp[: steps.size])
    usual = measured[np.abs(measured - middle) <= 4 * 1.4826 * np.median(np.abs(measured - middle)) + 1]
    least = _CROWDED_MISFIT if crowded else _LEAST_MISFIT
    off = max(abs(float(np.median(simulated[: steps.size])) - middle), least * middle)
    error = np.hypot(off, np.sqrt(2) * _MEDIAN * float(usual.std()) / np.sqrt(steps.size))
    return Baseline(
        model=model,
        batch=batch,
        resamples=random.integers(0, steps.size, (DRAWS, steps.size)),
        noise_ns=error * random.standard_normal(DRAWS),
        simulated_ns=simulated,
        measured_ns=middle,
        variation=float(usual.std()) / middle,
        slowed=random.uniform(0, _SLOWED, DRAWS) if crowded else np.zeros(DRAWS),
        hidden_ns=_hidden_ns(model, first, simulated[: steps.size]) if crowded else 0.0,
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
    low, high, most = *np.percentile(spread, INTERVAL), ceiling
    if "transfer" in changed.touches and baseline.slowed.any():
        hidden = baseline.hidden_ns
        slowed = spread - baseline.slowed * (_hidden_ns(changed, baseline.first, after[:count]) - hidden)
        less, more = np.percentile(slowed, INTERVAL)
        low, high, most = min(low, less), max(high, more), ceiling + _SLOWED * hidden  # nothing may be lost, too
    predicted = Predicted(
        step_ms=_ms(max(baseline.measured_ns - gain, 0.0)),
        gain_ms=_ms(gain),
        low_ms=_ms(min(float(low), gain)),
        high_ms=_ms(min(max(float(high), gain), max(most, gain))),
    )
    return predicted, _ms(ceiling)


def _hidden_ns(model: Model, batch: Batch, step_ns: Floats) -> float:
    """How long a step's collectives run beside compute: what they take, and compute takes, beyond the step."""
    costs = NodeCosts(model, range(len(model.nodes)), batch.draws)
    longest = (
        np.maximum.reduceat(costs.at(batch.steps), costs.bounds[:-1], axis=0)
        if model.nodes
        else np.zeros((0, batch.steps.size))
    )
    cost = longest.sum(axis=0)
    alone = simulate(replace(model, overlap=FREE), batch)
    return float(np.median(np.clip(alone + cost - step_ns, 0, cost)))


def ceiling_ns(baseline: Baseline, changed: Model) -> float:
    """What would be gained if transfers cost nothing, or all ranks were as fast as the fastest at each point."""
    if changed.touches not in baseline.ideal_ns:
        baseline.ideal_ns[changed.touches] = _ideal_ns(baseline, changed.touches)
    least = baseline.ideal_ns[changed.touches] - changed.spared_ns
    return max(baseline.replayed_ns - least, 0.0)


def _ideal_ns(baseline: Baseline, touches: frozenset[str]) -> float:
    """The step of the recorded configuration without all that such changes can shorten."""
    ideal = baseline.model
    if "wait" in touches:
        ideal = replace(ideal, low_ns=_fastest(ideal.low_ns), high_ns=_fastest(ideal.high_ns))
    if "transfer" in touches:
        ideal = replace(ideal, overlap=FREE)
    return float(np.median(simulate(ideal, baseline.first)))


def _fastest(own_ns: Floats) -> Floats:
    return np.broadcast_to(own_ns.min(axis=1, keepdims=True), own_ns.shape)


def _ms(ns: float) -> float:
    return round(ns / 1e6, 6)
