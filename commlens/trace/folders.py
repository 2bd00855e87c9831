"""Finding and reading the folder of a run: run.json, the rank folders in it, and the packs of such."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeGuard

from commlens.errors import DamagedRunError, NewerFormatError, RunNotFoundError, TraceError
from commlens.trace.alike import Alike
from commlens.trace.calibration import CALIBRATION_FILE
from commlens.trace.rank import Rank
from commlens.trace.schema import ALIVE_FILE, FORMAT_VERSION, RANK_FILE, RUN_FILE, SIGN_BYTES
from commlens.trace.shapes import with_known_shapes
from commlens.trace.storage.files import Files, Span, needed, read_each, read_spans
from commlens.trace.storage.held import Entry, entries_of, held_in
from commlens.trace.storage.places import is_remote

_RANK_FOLDER: Final = re.compile(r"rank-(\d{5,7})")
_AT_ONCE: Final = 512  # ranks whose descriptions are asked for together


@dataclass
class RunFolder:
    """What one folder holds of a run; without a usable run.json `info` is empty and `problem` says why."""

    path: Path
    calibration: Path | None = None
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
    if _is_run(entries):
        return path, []
    runs = _runs_among(entries)
    if not runs:
        raise RunNotFoundError(_no_run(path, entries))
    newest = runs[0]
    notes = [f"{path} holds {len(runs)} runs; this is the newest, {newest.name}"] if len(runs) > 1 else []
    known = set(runs)  # not looked into again: each may have thousands of folders
    empty = _unwritten(path, [each for each in entries if each.path not in known])
    return newest, [*notes, *(f"left out: {_nothing_written(each)}" for each in empty)]


def runs_in(path: Path) -> list[Path]:
    """The run folder at `path`, or every one in it, the newest first; empty where there is none.

    Raises:
        OSError: The folder may not be read.
    """
    if not is_remote(path) and not path.is_dir():
        return []
    entries = _entries(path)
    return [path] if _is_run(entries) else _runs_among(entries)


def holds_run(path: Path) -> bool:
    """Whether there is a run at `path` or in it, written or not, or nothing else either."""
    if is_remote(path):
        return True  # other tools' files are read on this machine only
    if not path.is_dir():
        return False
    entries = _entries(path)
    if not entries or _is_run(entries) or _holds(entries, RANK_FILE):
        return True
    return bool(_runs_among(entries) or _unwritten(path, entries))


def read_folder(path: Path) -> RunFolder:
    """Reads run.json and every rank.json of a run folder.

    Raises:
        DamagedRunError: Neither run.json nor any rank.json can be used.
        NewerFormatError: One of them is of a newer format.
        OSError: A file may not be read.
    """
    held = held_in(path)
    folder = RunFolder(path, path / CALIBRATION_FILE if CALIBRATION_FILE in held.top.names() else None)
    folder.notes += held.problems
    try:
        folder.info = info_in(read_each([(held.top, RUN_FILE)])[0], path / RUN_FILE)
    except DamagedRunError as error:
        folder.problem = str(error)
    ranks = [(int(match[1]), each) for each in held.folders if (match := _RANK_FOLDER.fullmatch(each.path.name))]
    for begin in range(0, len(ranks), _AT_ONCE):
        _read_ranks(folder, ranks[begin : begin + _AT_ONCE])
    _drop_other_runs(folder)
    if not folder.ranks and (folder.problem or folder.damaged):
        why = folder.problem or folder.notes[0]
        raise DamagedRunError(f"nothing readable is left of the run {path}: {why}; record it again")
    if not folder.ranks:
        folder.notes.append(f"{path} holds no rank yet")
    return folder


def _entries(path: Path) -> list[Entry]:
    record = "" if is_remote(path) else f", or record a run with COMMLENS={path}"
    try:
        return entries_of(path)
    except FileNotFoundError:
        raise RunNotFoundError(f"no such folder: {path}; check the path{record}") from None
    except NotADirectoryError:
        raise RunNotFoundError(f"{path} is a file, not a run; give the folder that holds {RUN_FILE}") from None


def _no_run(path: Path, entries: Sequence[Entry]) -> str:
    if _holds(entries, RANK_FILE):
        return f"{path} is one rank of a run; give the folder above it"
    if is_remote(path):
        return f"{path} holds no run; give a folder with {RUN_FILE} in it (copy other tools' files to this machine)"
    if empty := _unwritten(path, entries):
        return f"{_nothing_written(empty[-1])}; make room where it is to be written, and record again"
    what = "holds no run" if entries else "is an empty folder"
    return f"{path} {what}; give a folder with {RUN_FILE} in it, or record one with COMMLENS={path}"


def _holds(entries: Sequence[Entry], name: str) -> bool:
    return any(entry.path.name == name for entry in entries)


def _is_run(entries: Sequence[Entry]) -> bool:
    return any(entry.path.name == RUN_FILE or entry.is_pack or entry.is_rank for entry in entries)


def _runs_among(entries: Sequence[Entry]) -> list[Path]:
    """Folders that are runs, the newest first."""
    folders = [entry for entry in entries if entry.is_folder]
    heads = read_spans([Span(entry.path / RUN_FILE) for entry in folders])
    found = [
        (_age(entry, head), entry.path.name, entry.path)
        for entry, head in zip(folders, heads, strict=True)
        if isinstance(head, bytes) or _is_readable_run(entry.path)
    ]
    return [path for *_, path in sorted(found, key=lambda each: each[:2], reverse=True)]


def _is_readable_run(path: Path) -> bool:
    return _is_run(_readable(path))


def _unwritten(path: Path, entries: Sequence[Entry]) -> list[Path]:
    """Of a folder and those in it: recordings that have rank folders, and in them signs of life at most, by name."""
    if is_remote(path):
        return []
    if _is_unwritten(entries):
        return [path]
    return [each.path for each in entries if each.is_folder and _is_unwritten(_readable(each.path))]


def _is_unwritten(entries: Sequence[Entry]) -> bool:
    ranks = [each.path for each in entries if each.is_folder and _RANK_FOLDER.fullmatch(each.path.name)]
    return bool(ranks) and not _is_run(entries) and all(_is_bare(rank) for rank in ranks)


def _is_bare(rank: Path) -> bool:
    return all(each.path.name == ALIVE_FILE or each.path.name.startswith(".") for each in _readable(rank))


def _readable(folder: Path) -> list[Entry]:
    try:
        return entries_of(folder)
    except (OSError, TraceError):
        return []


def _nothing_written(path: Path) -> str:
    """What is to be said of such a recording, with the first reason that a rank left."""
    signs = [rank / ALIVE_FILE for rank in sorted(path.glob("rank-*"))]
    left = [_last_sign(answer, sign) for answer, sign in zip(read_spans([*map(Span, signs)]), signs, strict=True)]
    why = next((f"the recorder stopped ({each['gave_up']['error']})" for each in left if "gave_up" in each), None)
    reason = why or "the disk was full, or the job was killed in its first second"
    return f"{path} is a recording of commlens of which nothing was written: {reason}"


def _age(entry: Entry, head: bytes | Exception) -> int:
    """Start of the run, ns of the wall clock; where not known, when its folder last changed."""
    try:
        start = info_in(head, entry.path / RUN_FILE).get("start_ns")
    except (TraceError, OSError):
        start = None
    return start if _is_int(start) else entry.modified_ns()


def read_info(path: Path) -> dict[str, Any]:
    """Content of run.json or rank.json.

    Raises:
        DamagedRunError: It is no JSON object with a format version; the message is a clause.
        NewerFormatError: A newer commlens wrote it.
        OSError, TraceError: It may not be read.
    """
    return info_in(read_spans([Span(path)])[0], path)


def info_in(answer: bytes | Exception, path: Path) -> dict[str, Any]:
    """As `read_info`, of what was read there, or why it could not be."""
    if isinstance(answer, FileNotFoundError):
        raise DamagedRunError(f"{path} is missing")
    if isinstance(answer, Exception):
        raise answer
    try:
        info = json.loads(answer)
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


def _read_ranks(folder: RunFolder, ranks: Sequence[tuple[int, Files]]) -> None:
    answers, alike = read_each([(files, RANK_FILE) for _, files in ranks]), Alike()
    found = [
        rank
        for (number, files), answer in zip(ranks, answers, strict=True)
        if (rank := _rank(folder, number, files, answer, alike)) is not None
    ]
    open_ones = [rank for rank in found if not rank.info.get("end")]
    signs = read_each([(rank.files, ALIVE_FILE) for rank in open_ones])
    for rank, sign in zip(open_ones, signs, strict=True):
        rank.info |= _last_sign(sign, rank.path / ALIVE_FILE)
    for rank in found:
        other = folder.ranks.get(rank.rank)
        folder.ranks[rank.rank] = rank if other is None else fuller(other, rank, folder.notes)


def fuller(first: Rank, second: Rank, notes: list[str]) -> Rank:
    """Of the same rank twice the one with more collectives; a note says which."""
    kept = max(first, second, key=lambda rank: rank.table("collectives").num_rows)
    notes.append(f"rank {kept.rank} is there twice; {kept.path} is used, it has the most collectives")
    return kept


def _rank(folder: RunFolder, number: int, files: Files, answer: bytes | Exception, alike: Alike) -> Rank | None:
    """A rank as it describes itself; None where that is no description of it."""
    path = files.path
    try:
        info = info_in(answer, path / RANK_FILE)
    except DamagedRunError as error:
        _drop(folder, number, str(error))
        return None
    if not _is_int(info.get("rank")) or info["rank"] != number:
        _drop(folder, number, f"{path / RANK_FILE} is damaged (it does not say rank {number})")
        return None
    info, damaged = with_known_shapes(info)
    if damaged:
        folder.notes.append(f"{path / RANK_FILE} is damaged: not used of it: {', '.join(damaged)}")
    return Rank(number, path, alike.of(info), files)


def _last_sign(answer: bytes | Exception, path: Path) -> dict[str, Any]:
    """`alive_ns`, the last sign of life of a rank without an end, and `gave_up` behind it; nothing where none is."""
    if isinstance(answer, FileNotFoundError):
        return {}
    text = needed(answer, path)
    sign, why = text[:SIGN_BYTES].strip(), " ".join(text[SIGN_BYTES:].decode(errors="replace").split())
    return {**({"alive_ns": int(sign)} if sign.isdigit() else {}), **({"gave_up": {"error": why}} if why else {})}


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
