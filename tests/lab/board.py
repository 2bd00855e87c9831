"""A blackboard the ranks of one machine share: when each of them issued its part of a collective."""

from __future__ import annotations

import mmap
import os
import re
import struct
import tempfile
from collections.abc import Iterable
from pathlib import Path

VARIABLE = "LAB_BOARD"
PID, LATE = "pid-", "late-"  # files by rank: its process, the most that it was behind its plan in ms
RING = 1024  # collectives remembered; far more than can be under way
STUCK = "stuck"  # the file that says that the job will never go on
_CELL = struct.Struct("qqdq")
_STAMP = struct.Struct("q")


def folder() -> Path:
    """Where the ranks of this job meet; `lab.run` makes one a job."""
    path = os.environ.get(VARIABLE)
    if path is None:
        path = f"{tempfile.gettempdir()}/commlens-lab-{os.environ.get('TORCHELASTIC_RUN_ID', os.getppid())}"
    Path(path).mkdir(parents=True, exist_ok=True)
    return Path(path)


class Board:
    """When, how much and what each member issued, for the latest collectives of one group or direction."""

    def __init__(self, name: str, size: int) -> None:
        self._size = size
        path = folder() / re.sub(r"[^\w.-]", "_", name)
        handle = os.open(path, os.O_RDWR | os.O_CREAT)
        os.ftruncate(handle, RING * size * _CELL.size)
        self._cells = mmap.mmap(handle, RING * size * _CELL.size)
        os.close(handle)

    def _offset(self, seq: int, member: int) -> int:
        return (seq % RING * self._size + member) * _CELL.size

    def post(self, seq: int, member: int, issued_ns: int, num_bytes: float, signature: int) -> None:
        """To be called before the real collective is issued, so that whoever sees that end finds this."""
        at = self._offset(seq, member)
        _CELL.pack_into(self._cells, at, 0, issued_ns, num_bytes, signature)
        _STAMP.pack_into(self._cells, at, seq + 1)  # last: whoever sees it sees the rest

    def latest(self, seq: int, members: Iterable[int]) -> tuple[int, float]:
        """The last issue time of these members, and the most bytes."""
        cells = [self._cell(seq, member) for member in members]
        return max(cell[1] for cell in cells), max(cell[2] for cell in cells)

    def agree(self, seq: int, members: Iterable[int]) -> bool | None:
        """Whether these members issued the same; None as long as one of them did not issue anything."""
        cells = [self._cell(seq, member) for member in members]
        return len({cell[3] for cell in cells}) == 1 if all(cell[0] == seq + 1 for cell in cells) else None

    def _cell(self, seq: int, member: int) -> tuple[int, int, float, int]:
        return _CELL.unpack_from(self._cells, self._offset(seq, member))
