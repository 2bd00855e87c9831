"""Where in a step each collective of a rank was issued."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from commlens.analyzers.findings.context import Context
from commlens.analyzers.held import Lengthy, each, keep
from commlens.analyzers.intervals import Ints, length_within, merge, shared_within
from commlens.analyzers.ranks import RankFacts
from commlens.trace.schema import MISSING, PHASES

Which = NDArray[np.bool_]
_ITEM_BYTES = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2}


@dataclass(frozen=True)
class Placed(Lengthy, long=("facts", "kinds", "starts", "ends")):
    """The collective rows of one rank among the phases of its training thread.

    Attributes:
        facts: the rank.
        kinds: place in `PHASES` of each phase, by their starts.
        starts: of the phases, ns.
        ends: of the phases, ns.
    """

    facts: RankFacts
    kinds: Ints
    starts: Ints
    ends: Ints

    def issued_in(self, phase: str) -> Which:
        """Rows issued inside a forward, backward or optimizer step, shape (rows,)."""
        return self._inside & (self.kinds[self._phase] == PHASES.index(phase)) if self.kinds.size else self._inside

    @cached_property
    def after_backward(self) -> Which:
        """Rows issued between a backward and the optimizer's step, shape (rows,)."""
        if not self.kinds.size:
            return self._inside
        following = np.append(self.kinds[1:], MISSING)[self._phase]
        of_backward = self.kinds[self._phase] == PHASES.index("backward")
        return np.asarray(self._known & ~self._inside & of_backward & (following == PHASES.index("optimizer")))

    @cached_property
    def before_another(self) -> Which:
        """Rows issued in a backward that is followed by another one before the optimizer's step, shape (rows,)."""
        training = np.flatnonzero(self.kinds != PHASES.index("forward"))
        backward = self.kinds[training] == PHASES.index("backward")
        again = np.zeros(self.kinds.size, bool)
        again[training[:-1]] = backward[:-1] & backward[1:]
        return np.asarray(self.issued_in("backward") & again[self._phase]) if self.kinds.size else self._inside

    def op(self, *words: str) -> Which:
        """Rows of one of these operations, shape (rows,)."""
        found = np.zeros(self.facts.exposed_ns.size, bool)
        for word in words:
            found |= self.facts.columns.words["op"].equals(word)
        return found

    def group(self, name: str | None) -> Which:
        """Rows of a group, shape (rows,)."""
        return self.facts.columns.words["group"].equals(name or "")

    def dtype(self, *words: str) -> Which:
        """Rows of one of these data types, shape (rows,)."""
        found = np.zeros(self.facts.exposed_ns.size, bool)
        for word in words:
            found |= self.facts.columns.words["dtype"].equals(word)
        return found

    @cached_property
    def elements(self) -> Ints:
        """Elements that each row hands in, 0 where it is not of a floating type, shape (rows,)."""
        elements = np.zeros(self.facts.exposed_ns.size, np.int64)
        for word, size in _ITEM_BYTES.items():
            chosen = self.dtype(word)
            elements[chosen] = self.bytes[chosen] // size
        return elements

    @property
    def bytes(self) -> Ints:
        """Bytes that each row hands in, shape (rows,)."""
        return self.facts.columns.collectives["in_bytes"]

    def per_step(self, values: NDArray[np.generic]) -> float:
        """Sum of a value of rows over those issued in analysed steps, a step."""
        return float((values * (self.facts.analysed > 0)).sum()) / max(self.facts.steps.index.size, 1)

    def backwards(self) -> float:
        """Backwards a step."""
        own = self.kinds == PHASES.index("backward")
        inside = length_within(self.facts.steps.window, self.starts[own], self.starts[own] + 1)
        return float(inside.sum()) / max(self.facts.steps.index.size, 1)

    def own_ms(self, *phases: str) -> float:
        """Time in phases without standing still, ms a step."""
        chosen = np.isin(self.kinds, [PHASES.index(phase) for phase in phases])
        times, steps = merge(self.starts[chosen], self.ends[chosen]), self.facts.steps
        window = steps.start_ns, steps.end_ns
        still = shared_within(times, self.facts.blocked.merged, *window)
        return float((length_within(times, *window) - still).sum()) / max(steps.index.size, 1) / 1e6

    @cached_property
    def _phase(self) -> Ints:
        issued = self.facts.columns.collectives["issued_ns"]
        return np.asarray(np.maximum(np.searchsorted(self.starts, issued, side="right") - 1, 0))

    @cached_property
    def _known(self) -> Which:
        issued = self.facts.columns.collectives["issued_ns"]
        return issued >= self.starts[0] if self.starts.size else np.zeros(issued.size, bool)

    @cached_property
    def _inside(self) -> Which:
        issued = self.facts.columns.collectives["issued_ns"]
        return np.asarray(self._known & (issued < self.ends[self._phase])) if self.starts.size else self._known


def place(facts: RankFacts) -> Placed:
    """A rank's rows among its phases."""
    columns = facts.columns
    own = columns.phases["thread"] == columns.training_thread
    kinds = np.full(own.size, MISSING, np.int64)
    for code, phase in enumerate(PHASES):
        kinds[columns.during(phase)] = code
    rows = np.flatnonzero(own & (kinds != MISSING))
    rows = rows[np.argsort(columns.phases["start_ns"][rows], kind="stable")]
    return Placed(facts, kinds[rows], columns.phases["start_ns"][rows], columns.phases["end_ns"][rows])


def placed(context: Context) -> Sequence[Placed]:
    """Every rank's rows; [] where its models, its budget or how its times compare with the others' is not known."""
    if not all(context.infos.get(facts.rank, {}).get("models") for facts in context.ranks):
        return []
    unsure = context.joined.clocks.refusal is not None or not all(facts.budgeted for facts in context.ranks)
    return [] if unsure else keep(place, context.ranks)


def per_step(ranks: Sequence[Placed], rows: Sequence[Which], of: str | None = None) -> float:
    """Rows, or the sum of their `bytes` or `elements`, a step, mean over ranks."""
    return fmean(each(partial(_per_step, of=of), ranks, rows))


def _per_step(rank: Placed, rows: Which, of: str | None) -> float:
    return rank.per_step(rows if of is None else getattr(rank, of) * rows)


def own_ms(ranks: Sequence[Placed], *phases: str) -> float:
    """Time in phases without standing still, ms a step, mean over ranks."""
    return fmean(each(partial(_own_ms, phases=phases), ranks))


def _own_ms(rank: Placed, phases: Sequence[str]) -> float:
    return rank.own_ms(*phases)
