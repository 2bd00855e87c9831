"""Reads a pickle of plain values and runs nothing: the machine that does it cannot name code.

What a file makes it do is bounded as well: by instructions, and by the values that come out.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any, Final

from commlens.errors import TraceError
from commlens.trace.importers.unpickle_machine import Machine, NamesCodeError, TooLargeError

_MOST_VALUES: Final = 20_000_000  # a Flight Recorder entry with its stack has about 150
_CONTAINERS: Final = (dict, list, tuple)


def load_plain(path: Path, data: bytes) -> Any:
    """The numbers, strings, bytes, lists, tuples, dicts and sets that a pickle of protocol 2 to 5 holds.

    Args:
        path: where it comes from, for the message of an error.
        data: the pickle.

    Returns:
        A value without circles: whoever walks it comes to an end.

    Raises:
        TraceError: It names code, is damaged, or unfolds to more than any file of its kind holds.
    """
    try:
        value = Machine(data).run()
        if _unfolded(value) > _MOST_VALUES:
            raise TooLargeError
    except NamesCodeError:
        raise TraceError(
            f"{path} is a pickle that names code to run, which no dump does, and is refused; trust no such file"
        ) from None
    except (TooLargeError, MemoryError):
        raise TraceError(f"{path} unfolds to more than any dump holds; leave it out") from None
    except (LookupError, ValueError, TypeError, struct.error):
        raise TraceError(f"{path} is a truncated or damaged pickle of plain values; dump it again") from None
    return value


def _unfolded(root: object) -> int:
    """Values in `root` when what is used several times is written out each time, at most one more than allowed.

    Raises:
        ValueError: Something contains itself.
    """
    sizes: dict[int, int] = {}  # of containers by id; 0 while their parts are looked at
    stack = [root]
    while stack:
        item = stack[-1]
        parts = item.values() if isinstance(item, dict) else item if isinstance(item, _CONTAINERS) else ()
        if id(item) not in sizes:
            sizes[id(item)] = 0
            inner = [part for part in parts if isinstance(part, _CONTAINERS)]
            if any(sizes.get(id(part)) == 0 for part in inner):
                raise ValueError("a circle")
            stack += [part for part in inner if id(part) not in sizes]
            continue
        if not sizes[id(item)]:
            sizes[id(item)] = min(1 + sum(sizes.get(id(part), 1) for part in parts), _MOST_VALUES + 1)
        stack.pop()
    return sizes[id(root)]
