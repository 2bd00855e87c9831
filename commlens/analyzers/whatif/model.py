"""The model of a step: what each rank does by itself, and the collectives between, one node for all ranks."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TypeAlias

from commlens.analyzers.grouped import Floats
from commlens.analyzers.whatif.buckets import Buckets
from commlens.analyzers.whatif.gradients import Gradients
from commlens.analyzers.whatif.nodes import Link, Node
from commlens.analyzers.whatif.units import Units

AS_IS, NO_OVERLAP, PERFECT, FREE = "as is", "none", "perfect", "free"  # free: transfers take no time at all


@dataclass(frozen=True)
class Point:
    """Where a rank's thread meets a collective: it issues it, or stands still until it has ended.

    Attributes:
        node: which.
        waits: it waits for its end, else issues it.
        lag: steps before this one in which that was issued, 0 or 1.
    """

    node: int
    waits: bool
    lag: int = 0


@dataclass(frozen=True)
class Model:
    """A step of every rank, as it was in each recorded step.

    Own time is what a rank has worked since the step's start, without standing still for collectives. A point's
    own time is low + (high - low) * share ** warp, where the bootstrap draws the warp (1 is what is most likely).

    Attributes:
        step_ns: measured length of the steps, shape (ranks, steps).
        points: in the order in which every rank's thread meets them.
        low_ns: shape (points + 1, ranks, steps); the last is the step's whole own time.
        high_ns: as `low_ns`.
        share: shape (points + 1, ranks).
        nodes: the collectives.
        links: the communicators.
        gradients: None where no DDP model reduces any.
        late: positions of the ranks that are always waited for.
        layout: the buckets that the nodes are.
        overlap: AS_IS, NO_OVERLAP, PERFECT or FREE.
        sync_every: backwards for each that reduces gradients, where that is not part of the step itself.
        touches: what a change has changed: "transfer", "wait".
        widen: what intervals are multiplied by: 2 where costs come from a textbook's form, not from measurements.
        units: None where no FSDP model gathers its parameters.
        spared_ns: own time of a step that a change has taken away, of the rank with most.
        assumptions: what a prediction of this model rests on.
    """

    step_ns: Floats
    points: tuple[Point, ...]
    low_ns: Floats
    high_ns: Floats
    share: Floats
    nodes: tuple[Node, ...]
    links: tuple[Link, ...]
    gradients: Gradients | None = None
    late: tuple[int, ...] = ()
    layout: Buckets | None = None
    overlap: str = AS_IS
    sync_every: int = 1
    touches: frozenset[str] = frozenset()
    widen: float = 1.0
    units: Units | None = None
    spared_ns: float = 0.0
    assumptions: tuple[str, ...] = field(default=())

    @property
    def steps(self) -> int:
        """Recorded steps."""
        return int(self.step_ns.shape[1])

    def assuming(self, *reasons: str) -> Model:
        """The same model, with more that it rests on."""
        new = tuple(reason for reason in reasons if reason not in self.assumptions)
        return replace(self, assumptions=(*self.assumptions, *new))

    def touching(self, *what: str) -> Model:
        """The same model, that has changed in this."""
        return replace(self, touches=self.touches | frozenset(what))


Altered: TypeAlias = Model | str  # a changed model, or the reason why it cannot be told
