"""Runs made from other tools' files, kept so that they need not be made again."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from commlens._version import __version__
from commlens.errors import UsageError, WriteError
from commlens.trace.folders import holds_run
from commlens.trace.importers.convert import Progress, Spread, convert
from commlens.trace.importers.files import files_in
from commlens.trace.importers.rank_pattern import rank_pattern
from commlens.trace.reader import Run, access_errors, open_run
from commlens.trace.schema import FORMAT_VERSION, RUN_FILE
from commlens.trace.storage.places import is_remote

VARIABLE: Final = "COMMLENS_CACHE"
FOLDER: Final = ".commlens-cache"
_MOST: Final = 16  # runs kept in a folder; the ones not used for longest go first
_REVISION: Final = 3  # of the importers: a new one makes every run anew


def cached_run(
    files: Sequence[Path], rank_regex: str | None, progress: Progress | None, most: int = _MOST, beside: bool = True
) -> Path:
    """The run folder made from `files`, from the cache if their content is the same as then.

    It is kept in the folder that COMMLENS_CACHE names, else `beside` the first file, else in the user's cache; of more
    than `most` runs there the ones not used for longest go.

    Raises:
        TraceError: No file can be read.
        UsageError: The ranks cannot be told.
        WriteError: There is no room for the run.
    """
    key = _key(files, rank_regex)
    folders = _folders(files[0].parent if beside else None)
    for folder in folders:
        if (folder / key / RUN_FILE).is_file():
            with contextlib.suppress(OSError):
                os.utime(folder / key)
            return folder / key
    folder = next((each for each in folders if _is_writable(each)), folders[-1])
    return _made(folder, key, files, rank_regex, progress, most)


def import_run(
    paths: Sequence[Path],
    output: Path,
    rank_regex: str | None = None,
    progress: Progress | None = None,
    spread: Spread | None = None,
) -> Run:
    """Makes a run of other tools' files in the folder `output`, here or where fsspec reaches, and opens it.

    Args:
        paths: Files, folders of them, or patterns.
        output: A new folder.
        rank_regex: As in `open_run`.
        progress: As in `open_run`.
        spread: Reads files elsewhere, by processes that see them and the output's folder; None: in processes here.

    Raises:
        UsageError: The ranks cannot be told, or a path holds a run already.
        RunNotFoundError, TraceError: No file can be read.
        WriteError: `output` is not empty, or cannot be written.
    """
    if rank_regex is not None:
        rank_pattern(rank_regex)
    if refused := next(filter(is_remote, paths), None):
        raise UsageError(f"{refused}: other tools' files are read on this machine only; copy them here")
    with access_errors():
        if run := next(filter(holds_run, paths), None):
            raise UsageError(f"{run} is a run already; report it as it is")
        files = files_in(paths)
        if is_remote(output):
            return _sent(files, output, rank_regex, progress)
        if output.exists() and (not output.is_dir() or any(output.iterdir())):
            raise WriteError(f"{output} exists; give the name of a new folder")
    place = output if output.name else output.resolve()  # "." has none
    part = place.with_name(f".{place.name}.{uuid.uuid4().hex}")
    try:
        part.mkdir(parents=True)
        convert(files, part, f"imported-{_key(files, rank_regex)}", rank_regex, progress, spread)
        part.replace(place)
    except OSError as error:
        raise WriteError(f"cannot write {output}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return open_run(place)


def _sent(files: Sequence[Path], output: Path, rank_regex: str | None, progress: Progress | None) -> Run:
    """The run, made on this machine; run.json goes last, so that no part of it is taken for the whole."""
    from commlens.trace.storage.remote import look, put, tree

    if look(output) is not None and tree(output):
        raise WriteError(f"{output} exists; give the name of a new folder")
    with tempfile.TemporaryDirectory(prefix="commlens-") as folder:
        made = Path(folder)
        try:
            convert(files, made, f"imported-{_key(files, rank_regex)}", rank_regex, progress)
        except OSError as error:
            raise WriteError(f"cannot write {made}: {error.strerror or error}") from error
        sent = [(path, output / path.relative_to(made).as_posix()) for path in made.rglob("*") if path.is_file()]
        put([each for each in sent if each[0].name != RUN_FILE])
        put([each for each in sent if each[0].name == RUN_FILE])
    return open_run(output)


def _key(files: Sequence[Path], rank_regex: str | None) -> str:
    digest = hashlib.blake2b(digest_size=12)
    digest.update(repr((__version__, FORMAT_VERSION, _REVISION, rank_regex)).encode())
    for path in files:
        digest.update(path.name.encode("utf-8", "surrogateescape") + b"\0")
        with contextlib.suppress(OSError), path.open("rb") as file:  # why it cannot be read is said by its importer
            while data := file.read(1 << 20):
                digest.update(data)
            digest.update(b"%d" % file.tell())
    return digest.hexdigest()


def _folders(beside: Path | None) -> list[Path]:
    chosen = os.environ.get(VARIABLE)
    if chosen:
        return [Path(chosen)]
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # noqa: PTH111  (no home is no error)
    user = [] if home.startswith("~") else [Path(home) / "commlens"]
    near = [] if beside is None else [beside / FOLDER]
    return [*near, *user, Path(tempfile.gettempdir()) / f"commlens-{os.getuid()}"]


def _is_writable(folder: Path) -> bool:
    """Whether the folder is, or can be, made and written; one that nobody may write is left alone by root, too."""
    nearest = next(path for path in (folder, *folder.parents) if path.exists())
    return os.access(nearest, os.W_OK | os.X_OK) and bool(nearest.stat().st_mode & 0o222)


def _made(
    folder: Path, key: str, files: Sequence[Path], rank_regex: str | None, progress: Progress | None, most: int
) -> Path:
    part = folder / f".{key}.{uuid.uuid4().hex}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        part.mkdir()
        convert(files, part, f"imported-{key}", rank_regex, progress)
        _prune(folder, most)
        return _in_place(part, folder / key)
    except OSError as error:
        raise WriteError(
            f"cannot keep what was read in {folder}: {error.strerror or error}; name another folder with {VARIABLE}"
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _in_place(part: Path, path: Path) -> Path:
    try:
        part.rename(path)
    except OSError:
        if not (path / RUN_FILE).is_file():  # else another process was faster
            shutil.rmtree(path, ignore_errors=True)
            part.rename(path)
    return path


def _prune(folder: Path, most: int) -> None:
    """Makes room for one more run."""
    used = {}
    for file in folder.glob(f"[!.]*/{RUN_FILE}"):
        with contextlib.suppress(OSError):  # another process makes room as well
            used[file.parent] = file.parent.stat().st_mtime_ns
    for old in sorted(used, key=lambda path: used[path])[: -most + 1]:
        with contextlib.suppress(OSError):
            gone = old.rename(folder / f".{uuid.uuid4().hex}")  # at once: half a run would be taken for a whole one
            shutil.rmtree(gone, ignore_errors=True)
