"""Which figures stand in which section of a report."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple

from commlens.analyzers import Report
from commlens.ui import figures

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


class Placed(NamedTuple):
    """A figure by its name in addresses, what stands above it, and what draws it."""

    key: str
    title: str
    draw: Callable[[Report], Figure]


# By the key of the section, see `commlens.render.report.sections`.
PLACED: Final[dict[str, tuple[Placed, ...]]] = {
    "budget": (
        Placed("budget", "One step", figures.budget),
        Placed("steps", "Step by step", figures.steps),
    ),
    "ranks": (
        Placed("ranks", "What ranks wait, and make others wait", figures.ranks),
        Placed("rank-budgets", "Where the step of each rank goes", figures.rank_budgets),
    ),
    "path": (Placed("critical-path", "The critical path by kind and rank", figures.critical_path),),
    "collectives": (
        Placed("bandwidth", "Bandwidth by message size", figures.bandwidth),
        Placed("overlap", "What is hidden and what is exposed", figures.overlap),
        Placed("sizes", "Which message sizes cost time", figures.sizes),
    ),
    "links": (Placed("links", "What links carry, against their peaks", figures.links),),
}
