"""Finding and reading the folder of a run: run.json and the rank folders in it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeGuard

from commlens.errors import DamagedRunError, NewerFormatError, RunNotFoundError
from commlens.trace.rank import Rank
from commlens.trace.schema import ALIVE_FILE, FORMAT_VERSION, RANK_FILE, RUN_FILE
from commlens.trace.shapes import with_known_shapes

_RANK_FOLDER: Final = re.compile(r"rank-(\d{5,7})")
_SIGN: Final = 21  # bytes of a sign of life


@dataclass
class RunFolder:
    """What one folder holds of a run; without a usable run.json `info` is empty and `problem` says why."""

    path: Path
    info: dict[str, Any] = field(default_factory=dict)
    problem: str = ""
    ranks: dict[int, Rank] = field(default_factory=dict)
    damaged: list[int] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def run_id(self) -> str | None:
        """As run.json says, else as its ranks do; None where neither does."""
        for info in (self.info, *(rank.info for rank in self.ranks.values())):
            if isinstance(info.get("run_id"), str):
                return str(info["run_id"])
        return None


def find_run(path: Path) -> tuple[Path, list[str]]:
    """The run folder at `path`, or the newest in it, and notes on the choice.

    Raises:
        RunNotFoundError: There is none.
        OSError: A folder may not be read.
    """
    entries = _entries(path)
    if _is_run(path):
        return path, []
    runs = [entry for entry in entries if _is_readable_run(entry)]
    if not runs:
        raise RunNotFoundError(_no_run(path, entries))
    newest = max(runs, key=_age_key)
    if len(runs) == 1:
        return newest, []
    return newest, [f"{path} holds {len(runs)} runs; this is the newest, {newest.name}"]


def runs_in(path: Path) -> list[Path]:
    """The run folder at `path`, or every one in it, the newest first; empty where there is none.

    Raises:
        OSError: The folder may not be read.
    """
    if not path.is_dir():
        return []
    entries = _entries(path)
    if _is_run(path):
        return [path]
    return sorted((entry for entry in entries if _is_readable_run(entry)), key=_age_key, reverse=True)


def holds_run(path: Path) -> bool:
    """Whether there is a run at `path` or in it, or nothing else either."""
    if not path.is_dir():
        return False
    entries = _entries(path)
    return not entries or _is_run(path) or (path / RANK_FILE).exists() or any(map(_is_readable_run, entries))


def read_folder(path: Path) -> RunFolder:
    """Reads run.json and every rank.json of a run folder.

    Raises:
        DamagedRunError: Neither run.json nor any rank.json can be used.
        NewerFormatError: One of them is of a newer format.
        OSError: A file may not be read.
    """
    folder = RunFolder(path)
    try:
        folder.info = read_info(path / RUN_FILE)
    except DamagedRunError as error:
        folder.problem = str(error)
    for entry in sorted(path.iterdir()):
        if match := _RANK_FOLDER.fullmatch(entry.name):
            _read_rank(folder, entry, int(match[1]))
    _drop_other_runs(folder)
    if not folder.ranks and (folder.problem or folder.damaged):
        why = folder.problem or folder.notes[0]
        raise DamagedRunError(f"nothing readable is left of the run {path}: {why}; record it again")
    if not folder.ranks:
        folder.notes.append(f"{path} holds no rank yet")
    return folder


def _entries(path: Path) -> list[Path]:
    try:
        return sorted(path.iterdir())
    except FileNotFoundError:
        raise RunNotFoundError(
            f"no such folder: {path}; check the path, or record a run with COMMLENS={path}"
        ) from None
    except NotADirectoryError:
        raise RunNotFoundError(f"{path} is a file, not a run; give the folder that holds {RUN_FILE}") from None


def _no_run(path: Path, entries: list[Path]) -> str:
    if (path / RANK_FILE).exists():
        return f"{path} is one rank of a run; give the folder above it"
    what = "holds no run" if entries else "is an empty folder"
    return f"{path} {what}; give a folder with {RUN_FILE} in it, or record one with COMMLENS={path}"


def _is_run(path: Path) -> bool:
    return (path / RUN_FILE).exists() or any(path.glob(f"rank-*/{RANK_FILE}"))


def _is_readable_run(path: Path) -> bool:
    try:
        return path.is_dir() and _is_run(path)
    except OSError:
        return False


def _age_key(path: Path) -> tuple[int, str]:
    """Start of the run, ns of the wall clock; where not known, when its folder last changed."""
    try:
        start = read_info(path / RUN_FILE).get("start_ns")
    except (DamagedRunError, NewerFormatError, OSError):
        start = None
    return (start if _is_int(start) else path.stat().st_mtime_ns), path.name


def read_info(path: Path) -> dict[str, Any]:
    """Content of run.json or rank.json.

    Raises:
        DamagedRunError: It is no JSON object with a format version; the message is a clause.
        NewerFormatError: A newer commlens wrote it.
        OSError: It may not be read.
    """
    try:
        info = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise DamagedRunError(f"{path} is missing") from None
    except (ValueError, RecursionError):
        raise DamagedRunError(f"{path} is truncated or damaged") from None
    version = info.get("format_version") if isinstance(info, dict) else None
    if not _is_int(version) or version < 1:
        raise DamagedRunError(f"{path} is damaged (no format version)")
    if version > FORMAT_VERSION:
        raise NewerFormatError(
            f"{path} has format version {version}, this commlens reads up to {FORMAT_VERSION};"
            " update it with: pip install -U commlens"
        )
    return dict(info)


def _read_rank(folder: RunFolder, path: Path, number: int) -> None:
    try:
        info = read_info(path / RANK_FILE)
    except DamagedRunError as error:
        _drop(folder, number, str(error))
        return
    if not _is_int(info.get("rank")) or info["rank"] != number:
        _drop(folder, number, f"{path / RANK_FILE} is damaged (it does not say rank {number})")
        return
    info, damaged = with_known_shapes(info)
    if damaged:
        folder.notes.append(f"{path / RANK_FILE} is damaged: not used of it: {', '.join(damaged)}")
    folder.ranks[number] = Rank(number, path, info | _last_sign(path / ALIVE_FILE))


def _last_sign(path: Path) -> dict[str, int]:
    """`alive_ns`, the last sign of life of a rank without an end; nothing where its recorder kept none."""
    try:
        text = path.read_bytes()[:_SIGN].strip()
    except FileNotFoundError:
        return {}
    return {"alive_ns": int(text)} if text.isdigit() else {}


def _drop_other_runs(folder: RunFolder) -> None:
    """Leaves out ranks an earlier run left behind in the same folder."""
    expected = folder.run_id
    for number, rank in list(folder.ranks.items()):
        found = rank.info.get("run_id", expected)
        if found != expected:
            del folder.ranks[number]
            _drop(folder, number, f"{rank.path} belongs to another run, {found}")


def _drop(folder: RunFolder, number: int, why: str) -> None:
    folder.damaged.append(number)
    folder.notes.append(f"rank {number} is left out: {why}")


def _is_int(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)
