"""Writing results to files without overwriting anybody's."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

from commlens.errors import WriteError


def check_free(path: Path, force: bool) -> None:
    """Refuse a file that exists, unless forced.

    Raises:
        WriteError: it exists, or is a folder.
    """
    if path.is_dir():
        raise WriteError(f"{path} is a folder; give a file")
    if path.exists() and not force:
        raise WriteError(f"{path} exists; give another name, or --force to overwrite it")


def write_file(path: Path, force: bool, write: Callable[[Path], object]) -> None:
    """Let `write` fill a file beside `path`, and put it in place once it is whole; else nothing of it is left.

    Raises:
        WriteError: `path` exists and is not to be overwritten, or cannot be written.
    """
    check_free(path, force)
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
    """Make a folder, and those above it, unless it is there.

    Raises:
        WriteError: it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WriteError(f"cannot make the folder {path}: {error.strerror}") from error


def write_text(path: Path, force: bool, text: str) -> None:
    """Write a text file; see `write_file`."""
    write_file(path, force, lambda part: part.write_text(text, encoding="utf-8"))
