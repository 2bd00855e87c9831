"""The newest rows of a table file while it is being written: what was read once is not read again."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pyarrow as pa

_BYTES: Final = 1 << 17  # kept, compressed, beside the newest batch: some 10,000 collectives
_BATCHES: Final = 60  # a second each


class Tail:
    """Follows one table file; a file that was replaced, as at the end of a recording, is followed anew."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._inode = self._end = -1
        self._head: list[bytes] = []  # the schema and the words
        self._batches: deque[bytes] = deque()
        self._forget()

    def content(self) -> bytes:
        """A stream of the newest batches, to be read as a file of the table; empty where there is no file."""
        try:
            found = self._path.stat()
        except FileNotFoundError:
            self._forget()
            return b""
        if found.st_ino != self._inode or found.st_size < self._end:
            self._forget()
            self._inode = found.st_ino
        if found.st_size > self._end:
            self._read_on()
        return b"".join([*self._head, *self._batches])

    def _forget(self) -> None:
        self._inode, self._end = -1, 0
        self._head.clear()
        self._batches.clear()

    def _read_on(self) -> None:
        new: deque[tuple[int, int]] = deque(maxlen=_BATCHES)
        with pa.memory_map(str(self._path)) as source:  # batches that are passed over stay on the disk
            source.seek(self._end)
            try:
                while (message := pa.ipc.read_message(source)) is not None:
                    size = source.tell() - self._end
                    if message.type == "record batch":
                        new.append((size, self._end))
                    else:
                        self._head.append(source.read_at(size, self._end))
                    self._end += size
            except (EOFError, OSError, pa.ArrowException):
                pass  # the end, or a batch that is being written
            self._batches.extend(source.read_at(size, begin) for size, begin in _newest(new))
        while len(self._batches) > _BATCHES or (len(self._batches) > 1 and sum(map(len, self._batches)) > _BYTES):
            self._batches.popleft()


def _newest(batches: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """The last of the batches, as many as are kept."""
    chosen: list[tuple[int, int]] = []
    for size, begin in reversed(batches):
        if chosen and sum(each for each, _ in chosen) + size > _BYTES:
            break
        chosen.append((size, begin))
    return chosen[::-1]
