"""How far each quantity of a run may be off by chance, told from its own steps."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np

from commlens.analyzers.across.joined import Joined
from commlens.analyzers.collectives import moved_ns
from commlens.analyzers.grouped import Floats
from commlens.analyzers.intervals import Ints
from commlens.analyzers.pooled import Like, Pool
from commlens.analyzers.ranks import RankFacts
from commlens.analyzers.resampled import block_length, block_places, drawn_means, drawn_medians, times_drawn, widening
from commlens.analyzers.views.heat import caused_by_step
from commlens.trace.schema import MISSING

if TYPE_CHECKING:
    from commlens.analyzers.report import Report
    from commlens.analyzers.stages import Examined

FEWEST_STEPS: Final = 10  # fewer do not tell how much they scatter, least of all where neighbours are alike
PARTS: Final = (
    "step_ms",
    "compute_ms",
    "exposed_ms",
    "exposed_transfer_ms",
    "exposed_wait_ms",
    "exposed_unsplit_ms",
    "other_ms",
    "hidden_ms",
)
_LEAST_MS = 0.0005  # the ends of a step are not known any better
_FEWEST_DRAWS, _MOST_DRAWS, _WORK = 60, 400, 5e8  # _WORK: steps of all draws of all series, a second each 1e8

Series = tuple[Ints, Floats]  # places of steps, and a value of each


@dataclass(frozen=True)
class Noise:
    """Standard errors of a run's quantities, ms.

    Attributes:
        errors: by part of the budget; ("rank", number, quantity); ("line", group, op, bytes, quantity);
            ("group", name).
        freedom: degrees of freedom of all of them.
    """

    errors: Mapping[Hashable, float] = field(default_factory=dict)
    freedom: int = 1


class _Draws:
    """Steps of a run, drawn again and again, the same on every rank."""

    def __init__(self, lengths: Floats, series: int) -> None:
        """`lengths` are those of the steps, shape (steps,); `series` is how many will be asked for."""
        count, block = lengths.size, block_length(lengths)
        draws = int(np.clip(_WORK / count / series, _FEWEST_DRAWS, _MOST_DRAWS))
        random = np.random.default_rng(0)
        self._drawn = times_drawn(block_places(count, block, draws, random), count)
        self._widening = widening(lengths, block)
        self.freedom = max(1, count // block - 1)

    def of_medians(self, ranks: Sequence[Series]) -> float | None:
        """Error of the mean over ranks of their medians over steps."""
        found = [drawn_medians(values, self._drawn[:, places]) for places, values in ranks if values.size]
        return self._error(found)

    def of_means(self, ranks: Sequence[Series]) -> float | None:
        """Error of the mean over ranks of their means over steps."""
        return self._error([drawn_means(values, self._drawn[:, places]) for places, values in ranks if values.size])

    def _error(self, ranks: Sequence[Floats]) -> float | None:
        if not ranks:
            return None
        drawn = np.mean(ranks, axis=0)
        drawn = drawn[np.isfinite(drawn)]
        return max(float(np.std(drawn, ddof=1)) * self._widening, _LEAST_MS) if drawn.size > 1 else None


def noise_of_report(report: Report) -> Noise:
    """Of the parts of the budget alone: all that a report tells of single steps."""
    lines = report.by_step
    if len(lines) < FEWEST_STEPS:
        return Noise()
    draws, places = _Draws(np.array([line.step_ms for line in lines]), len(PARTS)), np.arange(len(lines))
    known = [part for part in PARTS if getattr(lines[0], part) is not None]
    columns = {part: np.array([getattr(line, part) for line in lines], np.float64) for part in known}
    return _noise({part: draws.of_medians([(places, values)]) for part, values in columns.items()}, draws)


def noise_of(examined: Examined) -> Noise:
    """Of every quantity that is compared."""
    ranks, joined = examined.ranks, examined.joined
    index = np.unique(np.concatenate([np.zeros(0, np.int64), *(facts.steps.index for facts in ranks)]))
    if index.size < FEWEST_STEPS:
        return Noise()
    places = {p: np.searchsorted(index, facts.steps.index) for p, facts in enumerate(ranks) if facts.steps.index.size}
    total, count = np.zeros(index.size), np.zeros(index.size)
    for place, steps in places.items():
        total[steps] += _lengths_ms(ranks[place])
        count[steps] += 1
    pool = Pool(ranks)
    draws = _Draws(total / count, len(ranks) * (2 * len(PARTS) + 2 * pool.count))
    errors: dict[Hashable, float | None] = {}
    budgeted = {place: steps for place, steps in places.items() if ranks[place].budgeted}
    _steps(errors, draws, ranks, places)
    _transfers(errors, draws, pool, joined, places)
    if budgeted:
        _parts(errors, draws, ranks, joined, budgeted)
        _ranks(errors, draws, ranks, joined, budgeted)
        _exposed(errors, draws, pool, budgeted)
    return _noise(errors, draws)


def _lengths_ms(facts: RankFacts) -> Floats:
    """Of a rank's analysed steps."""
    return np.asarray((facts.steps.end_ns - facts.steps.start_ns) / 1e6)


def _noise(errors: Mapping[Hashable, float | None], draws: _Draws) -> Noise:
    return Noise({name: error for name, error in errors.items() if error is not None}, draws.freedom)


def _steps(
    errors: dict[Hashable, float | None], draws: _Draws, ranks: Sequence[RankFacts], places: Mapping[int, Ints]
) -> None:
    """Of the step, over all ranks and of each: its length is known without a budget too, as in the report."""
    series = {place: (steps, _lengths_ms(ranks[place])) for place, steps in places.items()}
    errors |= {("rank", ranks[place].rank, "step_ms"): draws.of_medians([own]) for place, own in series.items()}
    errors["step_ms"] = draws.of_medians(list(series.values()))


def _parts(
    errors: dict[Hashable, float | None],
    draws: _Draws,
    ranks: Sequence[RankFacts],
    joined: Joined,
    places: Mapping[int, Ints],
) -> None:
    """Of what the budget splits the step into, over all ranks and of each."""
    series: dict[str, list[Series]] = {part: [] for part in PARTS[1:]}
    for place, steps in places.items():
        budget, split = ranks[place].budget, joined.exposed[place]
        assert budget is not None
        columns = (budget.compute, budget.exposed, split.transfer, split.wait, split.unsplit)
        for part, values in zip(PARTS[1:], (*columns, budget.other, budget.hidden), strict=True):
            series[part].append((steps, values / 1e6))
        for part in ("compute_ms", "exposed_ms"):
            errors["rank", ranks[place].rank, part] = draws.of_medians(series[part][-1:])
    errors |= {part: draws.of_medians(own) for part, own in series.items()}


def _ranks(
    errors: dict[Hashable, float | None],
    draws: _Draws,
    ranks: Sequence[RankFacts],
    joined: Joined,
    places: Mapping[int, Ints],
) -> None:
    """Of each rank's waiting, and of the others' for it: means over steps, as in the report."""
    count = 1 + max(int(steps.max()) for steps in places.values())
    for place, steps in places.items():
        errors["rank", ranks[place].rank, "wait_ms"] = draws.of_means([(steps, joined.exposed[place].wait / 1e6)])
    every, caused = np.arange(count), caused_by_step(ranks, joined, places, count)
    for place, facts in enumerate(ranks):
        errors["rank", facts.rank, "caused_wait_ms"] = draws.of_means([(every, caused[place])])


def _transfers(
    errors: dict[Hashable, float | None], draws: _Draws, pool: Pool, joined: Joined, places: Mapping[int, Ints]
) -> None:
    """Of the transfer times in the collectives table."""
    moved = {place: pool.medians_by_step(place, moved_ns(joined.waits[place])) / 1e6 for place in places}
    for kind, like in enumerate(pool.likes):
        errors[(*_line(like), "transfer_ms")] = draws.of_medians(
            [_seen(steps, moved[p][kind]) for p, steps in places.items()]
        )


def _exposed(errors: dict[Hashable, float | None], draws: _Draws, pool: Pool, places: Mapping[int, Ints]) -> None:
    """Of the exposed times in the collectives table, and of each group."""
    exposed = {place: pool.sums_by_step(place, pool.ranks[place].exposed_ns) / 1e6 for place in places}
    groups: dict[str, list[int]] = {}
    for kind, like in enumerate(pool.likes):
        groups.setdefault(like.group, []).append(kind)
        errors[(*_line(like), "exposed_ms")] = draws.of_medians(
            [(steps, exposed[p][kind]) for p, steps in places.items()]
        )
    for group, kinds in groups.items():
        own = [(steps, exposed[place][kinds].sum(axis=0)) for place, steps in places.items()]
        errors["group", group] = draws.of_medians(own)


def _line(like: Like) -> tuple[str, str, str, int | None]:
    return "line", like.group, like.op, None if like.bytes == MISSING else like.bytes


def _seen(steps: Ints, values: Floats) -> Series:
    """Without the steps in which there was nothing."""
    known = np.isfinite(values)
    return steps[known], values[known]
