"""Which files the paths given stand for."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from commlens.errors import RunNotFoundError

_DEPTH: Final = 3  # profilers write a folder a host or a rank, no deeper
_MOST: Final = 100_000


def files_in(paths: Sequence[Path]) -> list[Path]:
    """Every file at or below the paths, each once; names that begin with a dot are passed over.

    A path that does not exist may be a pattern, such as "traces/*.json.gz".

    Raises:
        RunNotFoundError: There is no file.
        OSError: A folder may not be read.
    """
    found = [file for path in paths for each in _expanded(path) for file in _below(each, _DEPTH)]
    distinct = list(dict.fromkeys(found))
    if not distinct:
        raise RunNotFoundError(f"no file in {paths[0]}; give a run, or files of another profiler")
    if len(distinct) > _MOST:
        raise RunNotFoundError(f"{paths[0]} holds more than {_MOST} files; give the folder of one job")
    return distinct


def _expanded(path: Path) -> list[Path]:
    if path.exists() or not glob.has_magic(str(path)):
        return [path]
    return sorted(Path(each) for each in glob.glob(str(path)))  # noqa: PTH207  (absolute patterns too)


def _below(path: Path, depth: int) -> Iterator[Path]:
    if path.is_file():
        yield path
    elif path.is_dir() and depth >= 0:
        for entry in sorted(path.iterdir()):
            if not entry.name.startswith(".") and entry.exists():  # of a link, what it leads to
                yield from _below(entry, depth - 1)
    elif not path.exists():
        raise RunNotFoundError(f"no such file or folder: {path}; check the path, or record a run with COMMLENS={path}")
