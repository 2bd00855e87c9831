"""The bytes of a file, decompressed where it is gzipped, never more in memory than asked for."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

from commlens.errors import TraceError

_READ: Final = 1 << 18
_GZIP: Final = b"\x1f\x8b"
_ANY_GZIP: Final = 31  # zlib's window bits: gzip with the largest window


class Content:
    """Reads a file from its beginning, once.

    Attributes:
        whole: False once the file turned out to be cut off or damaged within its gzip.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.whole = True

    def chunks(self, size: int = 1 << 20) -> Iterator[bytes]:
        """The content in pieces of at most `size` bytes; ends early where the gzip is damaged.

        Raises:
            TraceError: The file may not be read.
        """
        try:
            with self.path.open("rb") as file:
                head = file.read(2)
                file.seek(0)
                yield from self._inflated(file, size) if head == _GZIP else iter(lambda: file.read(size), b"")
        except OSError as error:
            raise TraceError(f"cannot read {self.path}: {error.strerror}; make it readable for this user") from error

    def head(self, size: int = 1 << 16) -> bytes:
        """The first bytes, `size` where there are so many."""
        parts, length = [], 0
        for chunk in self.chunks(size):
            parts.append(chunk)
            length += len(chunk)
            if length >= size:
                break
        return b"".join(parts)[:size]

    def all(self, most: int) -> bytes:
        """Everything.

        Raises:
            TraceError: It is more than `most` bytes, or may not be read.
        """
        parts, length = [], 0
        for chunk in self.chunks():
            parts.append(chunk)
            length += len(chunk)
            if length > most:
                raise TraceError(
                    f"{self.path} holds more than {most >> 20} MiB, no file of its kind does; leave it out"
                )
        return b"".join(parts)

    def _inflated(self, file: BinaryIO, size: int) -> Iterator[bytes]:
        """The members of a gzip file one after another."""
        self.whole = False
        member, data = zlib.decompressobj(_ANY_GZIP), file.read(_READ)
        try:
            while data:
                if piece := member.decompress(data, size):
                    yield piece
                data = member.unconsumed_tail
                if member.eof:
                    data = _past_zeros(file, member.unused_data)
                    self.whole = not data
                    member = zlib.decompressobj(_ANY_GZIP)
                data = data or file.read(_READ)
            if piece := member.flush():
                yield piece
        except zlib.error:
            return


def _past_zeros(file: BinaryIO, data: bytes) -> bytes:
    """What follows the padding that `data` begins with; empty where the file ends so."""
    while not (data := data.lstrip(b"\0")):
        if not (data := file.read(_READ)):
            break
    return data
