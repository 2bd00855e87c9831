"""How many are called that stand on one line."""

from __future__ import annotations

from rich.console import Console

from commlens.analyzers.at_scale.groups import Kind
from commlens.analyzers.at_scale.spread import Spread
from commlens.render.columns import clipped
from commlens.render.words import NOT_KNOWN

_KIND, _NAME = 14, 14


def kind_name(console: Console, kind: Kind) -> str:
    """Of groups of one kind, as long as a wide console has room for."""
    return clipped(console, kind.name, max(_KIND, console.width // 6))


def whose(console: Console, found: Spread | None) -> str:
    """The worst of several; where there is one it is no worst."""
    return NOT_KNOWN if found is None or found.count < 2 else clipped(console, found.whose, _NAME)


def median_of(found: Spread | None) -> float | None:
    """The median of what may not be known."""
    return None if found is None else found.median


def worst_of(found: Spread | None) -> float | None:
    """The worst of what may not be known."""
    return None if found is None else found.worst
