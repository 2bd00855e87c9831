"""Whether a change made steps shorter: rounds of the job without it and with it, one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from commlens.analyzers.columns import read_columns
from commlens.analyzers.grouped import Floats
from commlens.analyzers.resampled import block_length, block_places
from commlens.analyzers.steps import find_steps

if TYPE_CHECKING:
    from commlens.trace import Run

CONFIRMED, NO_EFFECT, WORSE, INCONCLUSIVE = VERDICTS = ("confirmed", "no effect", "worse", "inconclusive")
LEVEL = 0.9  # of the interval
FEWEST_STEPS = 5  # of a round: below, its median says little
SMALL = 0.02  # of the step: a gain that nobody cares for
_DRAWS, _REPEATS = 2000, 10  # the tails of few rounds need more draws than medians


@dataclass(frozen=True)
class Measured:
    """Step times before and after, ms; the gain is positive where steps became shorter.

    Attributes:
        before_ms: mean over rounds of their median step.
        after_ms: as above.
        gain_ms: the difference.
        low_ms: the lower end of the gain's interval.
        high_ms: its upper end.
        verdict: one of `VERDICTS`.
        spread_ms: the most that medians of rounds on the same side differ by.
    """

    before_ms: float
    after_ms: float
    gain_ms: float
    low_ms: float
    high_ms: float
    verdict: str
    spread_ms: float


def compare_steps(before: Sequence[Floats], after: Sequence[Floats], seed: int = 0) -> Measured:
    """Compare rounds that took turns: before, after, before, after, ...

    Args:
        before: step times of each round in ms, shape (steps,) each, warm-up left out.
        after: as many rounds.

    Raises:
        ValueError: There is no round, one has no step, or the sides have different numbers of them.
    """
    if not before or len(before) != len(after) or any(not steps.size for steps in (*before, *after)):
        raise ValueError("rounds of both sides, with a step each, are needed")
    medians = [np.array([np.median(steps) for steps in side]) for side in (before, after)]
    before_ms, after_ms = (float(side.mean()) for side in medians)
    gain, spread = before_ms - after_ms, max(float(np.ptp(side)) for side in medians)
    low, high = np.quantile(_gains(before, after, seed), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    fewest = min(steps.size for steps in (*before, *after))
    sure = len(before) > 1 and fewest >= FEWEST_STEPS
    verdict = _verdict(before_ms, gain, float(low), float(high), spread) if sure else INCONCLUSIVE
    return Measured(
        before_ms=round(before_ms, 6),
        after_ms=round(after_ms, 6),
        gain_ms=round(gain, 6),
        low_ms=round(float(low), 6),
        high_ms=round(float(high), 6),
        verdict=verdict,
        spread_ms=round(spread, 6),
    )


def _verdict(before_ms: float, gain: float, low: float, high: float, spread: float) -> str:
    """In words; between a gain and none, what differs from round to round decides."""
    if spread < abs(gain) and low > 0:
        return CONFIRMED
    if spread < abs(gain) and high < 0:
        return WORSE
    if max(abs(low), abs(high), spread) <= SMALL * before_ms:
        return NO_EFFECT
    return INCONCLUSIVE


def _gains(before: Sequence[Floats], after: Sequence[Floats], seed: int) -> Floats:
    """Gains as they might have come out, shape (draws,).

    Steps are resampled within each round. Of rounds there are too few for that (of two, the interval would hold the
    gain half of the time): what pairs of neighbouring rounds differ by goes in as Student's t. Pairs, because
    what drifted slowly was about the same in both.
    """
    random = np.random.default_rng(seed)
    pairs = list(zip(before, after, strict=True))
    within = np.mean([_medians(one, random) - _medians(other, random) for one, other in pairs], axis=0)
    if len(pairs) < 2:
        return np.asarray(within)
    gains = [np.median(one) - np.median(other) for one, other in pairs]
    error = np.std(gains, ddof=1) / np.sqrt(len(gains))
    return np.asarray(np.tile(within, _REPEATS) + error * random.standard_t(len(gains) - 1, _DRAWS * _REPEATS))


def _medians(steps: Floats, random: np.random.Generator) -> Floats:
    """Medians of a round's resampled steps, shape (draws,).

    They are drawn in blocks, as a slow step is often followed by another.
    """
    places = block_places(steps.size, block_length(steps), _DRAWS, random)
    return np.asarray(np.median(steps[places], axis=1))


def step_times(run: Run, cut: int) -> Floats:
    """Steps of a run without its warm-up in ms, means over ranks, shape (steps,).

    Args:
        cut: steps to leave out at the start; of a short run a third of all.
    """
    found = [find_steps(read_columns(rank)) for rank in run.ranks.values()]
    found = [steps for steps in found if steps.index.size]
    if not found:
        return np.zeros(0)
    first = min(cut, max(steps.count for steps in found) // 3)
    common = set.intersection(*(set(steps.index[steps.index >= first].tolist()) for steps in found))
    kept = [(steps.end_ns - steps.start_ns)[np.isin(steps.index, list(common))] for steps in found]
    return np.asarray(np.mean(kept, axis=0) / 1e6)
