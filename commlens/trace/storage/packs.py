"""Reading packs: one zip a node with the files of its ranks stored in it, so that each is a range of bytes.

Two requests open a pack: its end, with the directory, and its ranks' descriptions. A file is then one request: what
comes back is held against the checksum of the directory, so a pack that was replaced in between is noticed.
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from commlens.errors import TraceError
from commlens.trace.storage.files import Files, Span, needed, read_spans
from commlens.trace.storage.places import is_remote

_END: Final = 1 << 16  # bytes: the directory of a node with 50 ranks
_HEADER: Final = struct.Struct("<4s22xHH")  # of a member: its mark, the lengths of its name and of what extends it
_EXTENSION: Final = 64  # bytes between a member's name and its content, at most; 20 as commlens writes


class Pack(NamedTuple):
    """A pack as it was listed; another `tag` is another content."""

    path: Path
    size: int
    tag: str


class Member(NamedTuple):
    """Where a file lies in a pack: its header, the length of its name there, its bytes and their CRC-32."""

    at: int
    name_bytes: int
    size: int
    crc: int


class PackFiles(Files):
    """The files of one rank in a pack."""

    packed = True

    def __init__(self, pack: Pack, folder: str, members: Mapping[str, Member]) -> None:
        super().__init__(pack.path / folder)
        self.pack = pack
        self.members = dict(members)

    def sizes(self) -> Mapping[str, int]:
        """As the directory says."""
        return {name: member.size for name, member in self.members.items()}

    def span(self, name: str) -> Span | None:
        """The header and the content."""
        member = self.members.get(name)
        if member is None:
            return None
        end = member.at + _HEADER.size + member.name_bytes + _EXTENSION + member.size
        return Span(self.pack.path, member.at, min(end, self.pack.size))

    def content(self, name: str, raw: bytes) -> bytes:
        """The content, which is what was packed.

        Raises:
            TraceError: It is not.
        """
        member, begin = self.members[name], self.begin(name, raw)
        data = raw[begin : begin + member.size] if begin is not None else b""
        if begin is None or len(data) != member.size or zlib.crc32(data) != member.crc:
            self.check()
            raise DamagedMemberError(f"{self.path / name} is damaged; pack the run again")
        return data

    def begin(self, name: str, raw: bytes) -> int | None:
        """How far into its span the content begins; None where it does not, as in a pack that was replaced."""
        if len(raw) < _HEADER.size:
            return None
        mark, name_bytes, extension = _HEADER.unpack_from(raw)
        right = mark == b"PK\x03\x04" and name_bytes == self.members[name].name_bytes and extension <= _EXTENSION
        return _HEADER.size + name_bytes + extension if right else None

    def check(self) -> None:
        """See whether the pack is still the one that was opened.

        Raises:
            TraceError: It is not.
        """
        if _tag(self.pack.path) != self.pack.tag:
            raise TraceError(f"{self.pack.path} changed while it was read; open the run again")


class DamagedMemberError(TraceError):
    """A file in a pack is not what was packed."""


def local_pack(path: Path) -> Pack:
    """A pack of this machine.

    Raises:
        OSError: It is not there.
    """
    found = path.stat()
    return Pack(path, found.st_size, f"{found.st_ino}/{found.st_size}/{found.st_mtime_ns}")


def _tag(path: Path) -> str:
    if is_remote(path):
        from commlens.trace.storage.remote import look

        found = look(path)
        return "" if found is None else found.tag
    try:
        return local_pack(path).tag
    except FileNotFoundError:
        return ""


def open_packs(packs: Sequence[Pack]) -> tuple[dict[str, list[PackFiles]], list[str]]:
    """The rank folders in packs, by name, and what cannot be used of packs, a line each.

    Raises:
        OSError, TraceError: One may not be read.
    """
    found: dict[str, list[PackFiles]] = {}
    problems = []
    ends = read_spans([Span(pack.path, max(0, pack.size - _END), pack.size) for pack in packs])
    for pack, end in zip(packs, ends, strict=True):
        if isinstance(end, Exception):
            raise end
        try:
            for folder, members in _directory(pack, end).items():
                found.setdefault(folder, []).append(PackFiles(pack, folder, members))
        except ValueError as error:
            problems.append(f"{pack.path} is left out: it is damaged ({error}); pack its node again")
    return found, problems


def _directory(pack: Pack, end: bytes) -> dict[str, dict[str, Member]]:
    """Members by folder and name.

    Raises:
        ValueError: It is no pack; the message is a clause.
    """
    try:
        with zipfile.ZipFile(Parts(pack.path, pack.size, [(pack.size - len(end), end)])) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, OSError) as error:
        raise ValueError(str(error)) from error
    folders: dict[str, dict[str, Member]] = {}
    for entry in entries:
        folder, _, name = entry.filename.partition("/")
        if entry.is_dir() or not name or "/" in name:
            continue
        if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
            raise ValueError(f"{entry.filename} is not stored as it is")
        at = Member(entry.header_offset, len(entry.orig_filename.encode()), entry.file_size, entry.CRC)
        folders.setdefault(folder, {})[name] = at
    return folders


class Parts(io.RawIOBase):
    """A stretch of a file of which parts are known; the others are read when they are asked for.

    Args:
        path: of the file.
        size: of the stretch.
        parts: (where in the stretch, bytes).
        base: where the stretch begins.
    """

    def __init__(self, path: Path, size: int, parts: Sequence[tuple[int, bytes]], base: int = 0) -> None:
        self._path, self._size, self._base = path, size, base
        self._parts = list(parts)
        self._place = 0

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """Where it stands."""
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Stand elsewhere."""
        self._place = offset + (0, self._place, self._size)[whence]
        if self._place < 0:
            raise OSError("before the beginning")
        return self._place

    def read(self, size: int | None = -1) -> bytes:
        """The next bytes."""
        end = self._size if size is None or size < 0 else min(self._place + size, self._size)
        begin, self._place = self._place, max(end, self._place)
        return self._between(begin, end) if end > begin else b""

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """As `read`, into a buffer."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def _between(self, begin: int, end: int) -> bytes:
        for at, data in self._parts:
            if at <= begin and end <= at + len(data):
                return data[begin - at : end - at]
        (found,) = read_spans([Span(self._path, self._base + begin, self._base + end)])
        return needed(found, self._path)
