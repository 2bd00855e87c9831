"""Ranks whose process was ended by an exception, and recorders that gave up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from commlens.analyzers.rank_info import words

EXCEPTION: Final = "exception"  # `how` of a rank's end
_INTERRUPTED: Final = "KeyboardInterrupt"  # Ctrl-C, SIGINT


@dataclass(frozen=True)
class Raised:
    """A rank whose process was ended by an exception that nobody caught.

    Attributes:
        rank: global rank.
        error: its type and message, on one line.
        at_ns: when the process began to leave, ns of its clock; 0 where that is not known.
    """

    rank: int
    error: str
    at_ns: int

    @property
    def kind(self) -> str:
        """ "ValueError"."""
        return self.error.partition(":")[0]


def find_raised(infos: Mapping[int, Mapping[str, Any]]) -> tuple[Raised, ...]:
    """Those of a run, the first in time first, each by its own clock; none of recordings that do not tell."""
    found = [
        Raised(rank, words(info, "end").get("error") or "an exception of which nothing was noted", left_ns(info))
        for rank, info in infos.items()
        if words(info, "end").get("how") == EXCEPTION
    ]
    return tuple(sorted(found, key=lambda each: (each.at_ns, each.rank)))


def left_ns(info: Mapping[str, Any]) -> int:
    """When the process of a rank began to leave, ns of its clock; 0 where that is not known."""
    end = info.get("end") or {}
    return end.get("left_ns") or end.get("ns") or 0


def interrupted(raised: Sequence[Raised]) -> bool:
    """Whether somebody stopped the job by hand: what other ranks raised came of that."""
    return bool(raised) and raised[0].kind == _INTERRUPTED


def gave_up(info: Mapping[str, Any]) -> str | None:
    """Why the recorder of a rank stopped before the rank did; None where it did not, or did not tell."""
    return words(info, "gave_up").get("error") or None
