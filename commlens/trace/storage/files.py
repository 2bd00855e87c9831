"""The files of one rank, or of a run beside its ranks: in a folder, on other storage, or in a pack."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

from commlens.errors import TraceError
from commlens.trace.storage.places import is_remote

_AHEAD: Final = 1 << 20  # bytes up to which a file is read ahead: some 10 ms of a network


class Span(NamedTuple):
    """Bytes of a file, from `start` to before `end`, None for its end."""

    path: Path
    start: int = 0
    end: int | None = None


class Files:
    """Files by name. Cheap to pickle; what they hold is read when asked for.

    Attributes:
        path: where they are, as people are told.
        packed: whether tables are Parquet.
    """

    packed = False

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ahead: dict[str, bytes | Exception] = {}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_ahead": {}}

    def sizes(self) -> Mapping[str, int]:
        """Names and bytes."""
        raise NotImplementedError

    def names(self) -> list[str]:
        """Names alone."""
        return list(self.sizes())

    def span(self, name: str) -> Span | None:
        """Where a file lies; None where it is known not to be there."""
        raise NotImplementedError

    def content(self, name: str, raw: bytes) -> bytes:
        """The file, in the bytes of its span.

        Raises:
            TraceError: They are not it.
        """
        return raw

    def read(self, name: str) -> bytes | None:
        """A file; None where it is not there.

        Raises:
            TraceError: It cannot be read.
        """
        found = self._ahead.pop(name, None)
        if found is None:
            (found,) = read_each([(self, name)])
        return None if isinstance(found, FileNotFoundError) else needed(found, self.path / name)

    def read_ahead(self, names: Sequence[str]) -> None:
        """What will be read next, all at once where a request takes longer than what it brings; see `let_go`."""
        if is_remote(self.path):
            sizes = self.sizes()
            wanted = [name for name in names if sizes.get(name, _AHEAD) < _AHEAD]
            self._ahead = dict(zip(wanted, read_each([(self, name) for name in wanted]), strict=True))

    def let_go(self) -> None:
        """Of what was read ahead."""
        self._ahead = {}

    @contextmanager
    def as_local(self, name: str) -> Iterator[Path]:
        """A file of this machine with the content of this one, for as long as it is needed.

        Raises:
            TraceError: It cannot be read.
        """
        data = self.read(name)
        if data is None:
            raise TraceError(f"{self.path / name} is missing")
        with tempfile.TemporaryDirectory(prefix="commlens-") as folder:
            copy = Path(folder) / name
            copy.write_bytes(data)
            yield copy


class FolderFiles(Files):
    """A folder of this machine, as it is at the moment."""

    def sizes(self) -> Mapping[str, int]:
        """Of what is in the folder now."""
        return {name: size for name in self.names() if (size := _size(self.path / name)) is not None}

    def names(self) -> list[str]:
        """Of what is in the folder now; nothing where there is no folder."""
        try:
            return os.listdir(self.path)  # noqa: PTH208  (names are all that is wanted)
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            return []

    def span(self, name: str) -> Span | None:
        """The whole file, there or not."""
        return Span(self.path / name)

    @contextmanager
    def as_local(self, name: str) -> Iterator[Path]:
        """The file itself, there or not."""
        yield self.path / name


def _size(path: Path) -> int | None:
    """Bytes of a file, None where it is none, or has gone."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_size if stat.S_ISREG(found.st_mode) else None


class RemoteFiles(Files):
    """A folder elsewhere, as it was when it was listed."""

    def __init__(self, path: Path, sizes: Mapping[str, int]) -> None:
        super().__init__(path)
        self._sizes = dict(sizes)

    def sizes(self) -> Mapping[str, int]:
        """As the listing said."""
        return self._sizes

    def span(self, name: str) -> Span | None:
        """The whole file, whatever its size is now."""
        if name not in self._sizes:
            return None
        return Span(self.path / name, 0, None if self._sizes[name] else 0)  # no server has a range of nothing


def read_each(wanted: Sequence[tuple[Files, str]]) -> list[bytes | Exception]:
    """Files, side by side where they lie elsewhere; where one fails a FileNotFoundError, OSError or TraceError."""
    spans = [files.span(name) for files, name in wanted]
    answers = iter(read_spans([span for span in spans if span is not None]))
    found: list[bytes | Exception] = []
    for span, (files, name) in zip(spans, wanted, strict=True):
        answer = FileNotFoundError(str(files.path / name)) if span is None else next(answers)
        found.append(_opened(files, name, answer) if isinstance(answer, bytes) else _gone(files, name, span, answer))
    return found


def _opened(files: Files, name: str, raw: bytes) -> bytes | Exception:
    try:
        return files.content(name, raw)
    except TraceError as error:
        return error


def _gone(files: Files, name: str, span: Span | None, error: Exception) -> Exception:
    """What was listed and is not there any more is no file that was never written."""
    if span is None or isinstance(files, FolderFiles) or not isinstance(error, FileNotFoundError):
        return error
    return TraceError(f"{files.path / name} has gone since the run was opened; open it again")


def read_spans(spans: Sequence[Span]) -> list[bytes | Exception]:
    """As `read_each`."""
    elsewhere = [index for index, span in enumerate(spans) if is_remote(span.path)]
    found: list[bytes | Exception] = [b"" if is_remote(span.path) else _local(span) for span in spans]
    if elsewhere:
        from commlens.trace.storage.remote import fetch

        asked = [index for index in elsewhere if spans[index].end != spans[index].start]
        for index, answer in zip(asked, fetch([spans[index] for index in asked]), strict=True):
            found[index] = answer
    return found


def needed(answer: bytes | Exception, path: Path) -> bytes:
    """What was read.

    Raises:
        TraceError: It was not.
    """
    if isinstance(answer, OSError):
        why = answer.strerror or "it has gone"
        raise TraceError(f"cannot read {path}: {why}; make it readable for this user and try again") from answer
    if isinstance(answer, Exception):
        raise answer
    return answer


def _local(span: Span) -> bytes | Exception:
    try:
        if span.end is None and not span.start:
            return span.path.read_bytes()
        with span.path.open("rb") as file:
            file.seek(span.start)
            return file.read(-1 if span.end is None else span.end - span.start)
    except OSError as error:
        return error


def read_file(path: Path) -> bytes:
    """A file by its path.

    Raises:
        OSError: It may not be read, or is not there.
        TraceError: It is on other storage, and cannot be read.
    """
    (found,) = read_spans([Span(path)])
    if isinstance(found, Exception):
        raise found
    return found
