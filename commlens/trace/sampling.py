"""Which ranks, or steps, were chosen to be recorded: "0:4096:64", "0,8,16", "0:8,64:4096:64"."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

EVERY: Final = 2**62  # where a slice has no end
_PART: Final = re.compile(r"(\d{1,12})|(\d{0,12}):(\d{0,12})(?::(\d{1,12}))?", re.ASCII)

Choice = tuple[range, ...]


def parse_choice(text: str) -> Choice:
    """Numbers and Python's slices, several with commas between them; none may be negative.

    Raises:
        ValueError: It is no such list; the message is a clause.
    """
    return tuple(_part(part.strip()) for part in text.split(","))


def _part(text: str) -> range:
    found = _PART.fullmatch(text)
    if not found:
        raise ValueError(f"{text[:40]!r} is neither a number nor a slice such as 0:4096:64")
    if found[1]:
        return range(int(found[1]), int(found[1]) + 1)
    step = int(found[4] or 1)
    if not step:
        raise ValueError(f"{text[:40]!r} has a step of 0")
    return range(int(found[2] or 0), int(found[3]) if found[3] else EVERY, step)


def is_chosen(choice: Choice, number: int) -> bool:
    """Whether a number is among those chosen."""
    return any(number in part for part in choice)


def next_chosen(choice: Choice, number: int) -> int | None:
    """The first number chosen from `number` on, None where there is none."""
    later = [part[max(0, -(-(number - part.start) // part.step)) :][:1] for part in choice]
    return min((each[0] for each in later if each), default=None)


def chosen(choice: Choice, numbers: NDArray[np.integer[Any]]) -> NDArray[np.bool_]:
    """Which of `numbers` are chosen, of their shape."""
    kept, numbers = np.zeros(numbers.shape, bool), numbers.astype(np.int64, copy=False)
    for part in choice:
        inside = (numbers >= part.start) & (numbers < part.stop)
        kept |= inside & ((numbers - part.start) % part.step == 0)
    return kept


def left_out(said: object, size: int) -> list[int]:
    """Of `size` ranks those that `sampled_ranks` of run.json leaves out, ascending; none where it is not usable."""
    if not isinstance(said, str) or size < 1:
        return []
    try:
        choice = parse_choice(said)
    except ValueError:
        return []
    outside: Sequence[int] = np.flatnonzero(~chosen(choice, np.arange(size))).tolist()
    return list(outside)
