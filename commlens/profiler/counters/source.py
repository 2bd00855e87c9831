"""What a source of counters is: it is asked for raw readings on one thread, which are decoded on another.

Reading must be short, for it happens several times a second beside the job; decoding is done a second's worth at once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, Final

from commlens.trace.counters import COUNTERS, LINK_KINDS

Key = tuple[str, str]  # (device, counter): a name in `links` of rank.json, a word of `COUNTERS`
Pair = tuple[Key, int]
Link = dict[str, Any]

ALL: Final = "all"  # in place of a counter: nothing of the device can be read
_MOST_REFUSALS: Final = 500


class Source(ABC):
    """Counters that are read together.

    Attributes:
        name: in few words, for rank.json.
        every_ms: the least time between two readings; 0 reads whenever the sampler does.
        slow_to_begin: its first `refresh` may take seconds; others are read meanwhile.
        links: the devices it reads, as rank.json has them.
    """

    name = ""
    every_ms = 0
    slow_to_begin = False

    def __init__(self) -> None:
        self.links: list[Link] = []
        self._refused: dict[Key, str] = {}

    @abstractmethod
    def refresh(self) -> None:
        """Looks for devices that came since; called before the first reading and now and then."""

    @abstractmethod
    def read(self) -> Any:
        """One raw reading, cheap to take; equal to the one before when nothing changed. None if there is none."""

    def decode(self, raw: Any) -> Iterable[Pair]:
        """The counters in a raw reading."""
        return raw  # type: ignore[no-any-return]

    def close(self) -> None:  # noqa: B027 - some have none
        """Lets go of files; after a fork in the child too."""

    def refuse(self, device: str, counter: str, reason: str) -> None:
        """Notes what cannot be read, once."""
        if len(self._refused) < _MOST_REFUSALS:
            self._refused.setdefault((device, counter), reason)

    @property
    def unsupported(self) -> list[dict[str, str]]:
        return [{"device": key[0], "counter": key[1], "reason": reason} for key, reason in list(self._refused.items())]


def link(
    name: str, kind: str, counts: str, clock: str, peak: float | None = None, peak_from: str = "", **known: Any
) -> Link:
    """A device as rank.json has it; of `known` what is None or empty is left out.

    Args:
        counts: what its bytes include.
        clock: how old a reading may be.
        peak: bytes a second in one direction, None where nothing tells it.
        peak_from: where the peak is from, or why there is none.
    """
    assert kind in LINK_KINDS
    said = {"peak_bytes_per_s": None if peak is None else int(peak), "peak_from": peak_from}
    extra = {word: value for word, value in known.items() if value not in (None, "")}
    return {"name": name, "kind": kind, **said, "bytes": counts, "clock": clock, **extra}


def key(device: str, counter: str) -> Key:
    assert counter in COUNTERS, counter
    return device, counter
