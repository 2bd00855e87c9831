"""Whether a rank is one collective ahead or behind in its sequence: it skipped one, or issued one too many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from commlens.analyzers.intervals import Ints
from commlens.trace.schema import MISSING

SKIPPED, EXTRA = "skipped", "extra"
_MOST = 4  # collectives skipped, or too many
_CONTEXT = 16  # collectives before the last that tell what comes next


@dataclass(frozen=True)
class Shift:
    """The sequence of some ranks is that of the others, moved.

    Attributes:
        ranks: whose it is.
        kind: SKIPPED: they left collectives out; EXTRA: they have some that the others have not.
        by: how many.
        first: where it may have happened, counted from the disagreement: 0, or less where several are alike.
        compared: collectives since the disagreement that agree when moved.
        counted: they also have as many fewer, or more, in all.
    """

    ranks: tuple[int, ...]
    kind: str
    by: int
    first: int
    compared: int
    counted: bool


def find_shift(tokens: Ints, members: Sequence[int], usual: int, others: Sequence[int], column: int) -> Shift | None:
    """The shift that explains a disagreement, None where none does.

    Args:
        tokens: what each member did, MISSING where nothing, shape (members, columns).
        members: their ranks.
        usual: index of a member of the largest side.
        others: indices of the members that did something else.
        column: the first disagreement.
    """
    each = [_shifts(tokens[usual], tokens[index], column) for index in others]
    common = set.intersection(*(set(own) for own in each)) if each else set()
    found = [
        Shift(
            tuple(sorted(members[index] for index in others)),
            kind,
            by,
            first=max(own[kind, by][0] for own in each),
            compared=min(own[kind, by][1] for own in each),
            counted=all(own[kind, by][2] for own in each),
        )
        for kind, by in common
    ]
    return max(found, key=lambda shift: (shift.counted, -shift.by, shift.compared, shift.kind), default=None)


def _shifts(usual: Ints, own: Ints, column: int) -> dict[tuple[str, int], tuple[int, int, bool]]:
    """Kind and size of every shift that fits, with its `first`, `compared` and `counted`."""
    usual, own, found = _known(usual), _known(own), {}
    later = min(usual.size, own.size)
    if later > column + 1 and np.array_equal(usual[column + 1 : later], own[column + 1 : later]):
        return {}  # it did one thing differently, and went on with the others
    ahead = np.concatenate([usual, _expected(usual)])
    for by in range(1, _MOST + 1):
        for kind, still, moved in ((SKIPPED, own, ahead), (EXTRA, usual, own)):
            compared = min(still.size - column, moved.size - column - by)
            if compared > 0 and np.array_equal(still[column:][:compared], moved[column + by :][:compared]):
                counted = usual.size - own.size == (by if kind == SKIPPED else -by)
                found[kind, by] = _first(still, moved, column, by), compared, counted
    return found


def _known(tokens: Ints) -> Ints:
    """Tokens up to the rank's last."""
    end = np.flatnonzero(tokens != MISSING)
    return tokens[: end[-1] + 1] if end.size else tokens[:0]


def _first(still: Ints, moved: Ints, column: int, by: int) -> int:
    """How far back it may have happened: as long as the moved sequence agrees too."""
    apart = np.flatnonzero(still[:column] != moved[by : column + by])
    return (int(apart[-1]) + 1 if apart.size else 0) - column


def _expected(tokens: Ints) -> Ints:
    """What would come next: what came after the latest earlier place that looks most like the end."""
    places = np.flatnonzero(tokens[:-1] == tokens[-1])
    for back in range(1, _CONTEXT):
        alike = places[places >= back]
        alike = alike[tokens[alike - back] == tokens[-1 - back]] if back < tokens.size else alike[:0]
        if not alike.size:
            break
        places = alike
    return tokens[places[-1] + 1 :][:_MOST] if places.size else tokens[:0]
