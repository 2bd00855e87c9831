"""What a trial gains, by the simulator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from commlens.analyzers.report import Predicted
from commlens.analyzers.whatif.asked import Simulator
from commlens.trace.changes import Change

# The gain that is exceeded with a probability of 0.8, of a normal distribution whose 5th percentile is known:
# gain - 0.8416 / 1.6449 * (gain - low).
_LIKELY = 0.8416 / 1.6449


@dataclass(frozen=True)
class Price:
    """The best of some sets of changes.

    Attributes:
        changes: of it.
        predicted: its gain over the recorded configuration.
        ceiling_ms: the most that such changes could gain.
    """

    changes: tuple[Change, ...]
    predicted: Predicted
    ceiling_ms: float | None


def likely_gain_ms(predicted: Predicted) -> float:
    """The gain that is exceeded in four cases of five, ms."""
    return predicted.gain_ms - _LIKELY * (predicted.gain_ms - predicted.low_ms)


def best_of(simulator: Simulator, sets: Sequence[Sequence[Change]], below: Sequence[Change] = ()) -> Price | str:
    """The set that gains most, or why none can be simulated.

    Args:
        below: changes that each set is added to, but for those it has another value for.
    """
    prices, why = [], "there is nothing to simulate"
    for each in sets:
        named = {change.name for change in each}
        changes = (*(change for change in below if change.name not in named), *each)
        scenario = simulator.scenario(changes)
        if scenario.predicted is None:
            why = scenario.abstention or why
        else:
            prices.append(Price(changes, scenario.predicted, scenario.ceiling_ms))
    return max(prices, key=lambda price: price.predicted.gain_ms, default=why)
