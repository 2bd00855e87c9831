"""Writing results to files without overwriting anybody's."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from commlens.errors import WriteError


def check_free(path: Path, force: bool) -> None:
    """Refuse a file that exists, unless forced.

    Raises:
        WriteError: it exists, or is a folder.
    """
    is_folder, exists = (path.is_dir(), path.exists()) if isinstance(path, Path) else _elsewhere(path)
    if is_folder:
        raise WriteError(f"{path} is a folder; give a file")
    if exists and not force:
        raise WriteError(f"{path} exists; give another name, or --force to overwrite it")


def write_file(path: Path, force: bool, write: Callable[[Path], object]) -> None:
    """Let `write` fill a file beside `path`, and put it in place once it is whole; else nothing of it is left.

    What goes to other storage is made on this machine, and sent there whole.

    Raises:
        WriteError: `path` exists and is not to be overwritten, or cannot be written.
    """
    check_free(path, force)
    if not isinstance(path, Path):
        _send(path, write)
        return
    part = path.with_name(f".{path.name}.part")
    try:
        write(part)
        part.replace(path)
    except OSError as error:
        raise WriteError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink()


def make_folder(path: Path) -> None:
    """Make a folder, and those above it, unless it is there; other storage makes them of the files' names.

    Raises:
        WriteError: it cannot be made.
    """
    if not isinstance(path, Path):
        return
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WriteError(f"cannot make the folder {path}: {error.strerror}") from error


def _elsewhere(path: Path) -> tuple[bool, bool]:
    """Whether it is a folder, and whether there is anything; `path` is one of fsspec."""
    from commlens.trace.storage.remote import look

    found = look(path)
    return found is not None and found.is_folder, found is not None


def _send(path: Path, write: Callable[[Path], object]) -> None:
    from commlens.trace.storage.remote import put

    with tempfile.TemporaryDirectory(prefix="commlens-") as folder:
        whole = Path(folder) / path.name
        try:
            write(whole)
        except OSError as error:
            raise WriteError(f"cannot write {whole}: {error.strerror or error}") from error
        put([(whole, path)])


def write_text(path: Path, force: bool, text: str) -> None:
    """Write a text file; see `write_file`."""
    write_file(path, force, lambda part: part.write_text(text, encoding="utf-8"))


def write_pieces(path: Path, force: bool, pieces: Iterable[str]) -> None:
    """Write a text file, piece by piece; see `write_file`."""

    def write(part: Path) -> None:
        with part.open("w", encoding="utf-8") as file:
            file.writelines(pieces)

    write_file(path, force, write)
