"""Which ranks of a node are recording, and whether its packing process is there: by locks that the kernel lets go.

A rank holds a lock on a file of its own in the node-local run folder until its process ends, however that ends; when
it has written everything it says so in that file. Whoever shares the folder shares the locks, whatever containers or
hosts they are in: that is what a node is here.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

PACKER: Final = ".packer"  # locked by the packing process
_GATE: Final = ".gate"  # locked while a rank comes, and while the folder goes
_LIVE: Final = ".live-{rank:05d}"
_PATIENCE_S: Final = 2.0
_LEFT: Final = b"left\n"


class Presence:
    """One rank in a node-local run folder; the folder is made where it is missing.

    Raises:
        FileExistsError: Another process is this rank.
        OSError: The folder cannot be made, or its file system has no locks.
    """

    def __init__(self, local: Path, rank: int) -> None:
        self._fd = _present(local, rank)

    def leave(self) -> None:
        """Everything of this rank is written; its process goes on for a while."""
        try:
            if self._fd >= 0:
                os.pwrite(self._fd, _LEFT, 0)
        except OSError:  # the disk is full
            self.let_go()

    def let_go(self) -> None:
        """As if the process had ended; in the child of a fork the parent's presence stays."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1


def _present(local: Path, rank: int) -> int:
    while True:
        local.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError), gate(local):  # the folder was packed and went in this moment
            return _own_lock(local, rank)


def _own_lock(local: Path, rank: int) -> int:
    fd = os.open(local / _LIVE.format(rank=rank), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        _wait_for(fd)
        os.ftruncate(fd, 0)
    except OSError as error:
        os.close(fd)
        if isinstance(error, TimeoutError):
            raise FileExistsError(f"another process is rank {rank} of {local}") from None
        raise
    return fd


@contextmanager
def gate(local: Path) -> Iterator[None]:
    """No rank comes while this is held.

    Raises:
        FileNotFoundError: There is no such folder.
        TimeoutError: Somebody has held it for seconds.
        OSError: The file system has no locks.
    """
    fd = os.open(local / _GATE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        _wait_for(fd)
        yield
    finally:
        os.close(fd)


def take(path: Path) -> int | None:
    """A descriptor that holds the lock of `path`; None where another process does.

    Raises:
        OSError: It cannot be locked.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(fd)
        if isinstance(error, BlockingIOError):
            return None
        raise
    return fd


def came(local: Path) -> int:
    """How many ranks have come so far."""
    return len(list(local.glob(".live-*")))


def is_recording(local: Path) -> bool:
    """Whether a rank of the folder still writes, or may."""
    return any(_is_held(path, but_left=True) for path in local.glob(".live-*"))


def is_present(local: Path) -> bool:
    """Whether the process of a rank is still there."""
    return any(map(_is_held, local.glob(".live-*")))


def _is_held(path: Path, but_left: bool = False) -> bool:
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # let go with the file
    except BlockingIOError:
        return not (but_left and path.stat().st_size)
    except FileNotFoundError:
        pass
    return False


def _wait_for(fd: int) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            return fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise TimeoutError(f"a lock in the node's folder is held for {_PATIENCE_S:.0f} s") from None
            time.sleep(0.005)
