"""Counter files that stay open: reading one again costs one system call."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

_PAGE: Final = 4096
_LONGEST_LINE: Final = 512
_MOST: Final = 2**20


class CounterFile:
    """One file of sysfs or procfs; opened again after an error, for devices come and go.

    Args:
        path: its path.
        pages: it may be longer than a page, of which procfs gives one a call, in whole lines.
    """

    def __init__(self, path: Path | str, pages: bool = False) -> None:
        self.path = str(path)
        self._pages = pages
        self._fd = -1

    def read(self) -> bytes:
        """The content now.

        Raises:
            OSError: It cannot be opened or read; the next call tries anew.
        """
        if self._fd < 0:
            return self._open()
        try:
            return self._read()
        except OSError:
            self.close()
        return self._open()

    def _open(self) -> bytes:
        self._fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return self._read()
        except OSError:
            self.close()
            raise

    def _read(self) -> bytes:
        data = os.pread(self._fd, _PAGE, 0)
        if not self._pages or len(data) < _PAGE - _LONGEST_LINE:
            return data
        pieces, length = [data], len(data)
        while data and length < _MOST:
            data = os.pread(self._fd, _PAGE, length)
            pieces.append(data)
            length += len(data)
        return b"".join(pieces)

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def read_text(path: Path) -> str | None:
    """A short file's text, None where it cannot be read."""
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return None


def why(error: OSError) -> str:
    """An error in the system's words."""
    return (error.strerror or str(error)).lower()
