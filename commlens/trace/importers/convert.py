"""From files of other tools to a run folder: one rank's file in memory at a time, ranks side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np

from commlens.errors import RunNotFoundError, TraceError
from commlens.trace.importers.formats import format_of, importer
from commlens.trace.importers.imported import Column, ImportedRank
from commlens.trace.importers.numbering import Part, numbered
from commlens.trace.importers.side_by_side import each, workers_for
from commlens.trace.schema import FORMAT_VERSION, IMPORTED, MISSING, RANK_FOLDER, TABLES

_NAMED: Final = 3
UNNAMED: Final = "unnamed"
_MOST_NAMES: Final = 2**15  # of the columns that have 16 bits for one

Progress = Callable[[int, int], None]  # files done, files in all
_Task: TypeAlias = tuple[str, Path, Path]  # format, file, where to write
_Answer: TypeAlias = tuple[list[Part], str | None]  # or why there is none
# Runs a function of each item of a sequence, somewhere else.
Spread: TypeAlias = Callable[[Callable[[Any], Any], Sequence[Any]], Iterable[Any]]


def convert(
    files: Sequence[Path],
    into: Path,
    run_id: str,
    rank_regex: str | None = None,
    progress: Progress | None = None,
    spread: Spread | None = None,
) -> None:
    """Writes the run that `files` hold into the folder `into`, which exists and is empty.

    What cannot be read is left out and named in a note of the run; so are files of other formats, other
    jobs, and older files of a rank.

    Raises:
        RunNotFoundError: No file is of a format that is known.
        TraceError: No file can be read.
        UsageError: The ranks cannot be told.
        OSError: The run cannot be written.
    """
    notes: list[str] = []
    format, chosen = _chosen(files, notes)
    parts = []
    for found, problem in _read_all(format, chosen, into, progress, spread):
        parts += found
        notes += [problem] if problem else []
    if not parts:
        raise TraceError(_nothing(files, notes))
    ranks, left_out = numbered(parts, rank_regex)
    _write_run(into, run_id, format, ranks, [*notes, *left_out])


def _chosen(files: Sequence[Path], notes: list[str]) -> tuple[str, list[Path]]:
    """The best format among the files, and the files that have it."""
    formats: dict[str | None, list[Path]] = {}
    for path in files:
        try:
            formats.setdefault(format_of(path), []).append(path)
        except TraceError as error:
            notes.append(f"left out: {error}")
    unknown = formats.pop(None, [])
    if not formats:
        raise RunNotFoundError(_nothing(files, notes, unknown))
    best = min(formats, key=lambda each: list(IMPORTED).index(each or ""))
    for other, paths in formats.items():
        if other != best:
            notes.append(f"left out: {_few(paths)}: {IMPORTED[other or '']}; give them by themselves")
    if unknown:
        notes.append(f"left out: {_few(unknown)}: of no format that commlens reads")
    return best or "", formats[best]


def _nothing(files: Sequence[Path], notes: Sequence[str], unknown: Sequence[Path] = ()) -> str:
    if notes:
        first = notes[0].removeprefix("left out: ")
        return first if len(notes) == 1 else f"none of {len(notes)} files could be read: {first}"
    formats = ", ".join(IMPORTED.values())
    verb = "is" if len(unknown or files) == 1 else "are"
    return f"{_few(unknown or files)} {verb} no run, and of no format that commlens reads: {formats}; check the path"


def _few(paths: Sequence[Path]) -> str:
    named = ", ".join(str(path) if len(paths) == 1 else path.name for path in paths[:_NAMED])
    return named if len(paths) <= _NAMED else f"{named} and {len(paths) - _NAMED} more"


def _read_all(
    format: str, files: Sequence[Path], into: Path, progress: Progress | None, spread: Spread | None
) -> Iterator[_Answer]:
    """The parts of each file in order, or why there are none; progress is told after each."""
    tasks = [(format, path, into / f"part-{place:06d}") for place, path in enumerate(files)]
    for done, result in enumerate(_read_each(tasks) if spread is None else spread(_read_one, tasks), 1):
        if progress is not None:
            progress(done, len(files))
        yield result


def _read_each(tasks: Sequence[_Task]) -> Iterator[_Answer]:
    workers = workers_for(len(tasks), sum(path.stat().st_size for _, path, _ in tasks))
    return each(_read_one, tasks, workers, _lost)


def _lost(task: _Task) -> _Answer:
    return [], f"left out: {task[1]}: the process that read it was killed, perhaps for want of memory; give it alone"


def _read_one(task: _Task) -> _Answer:
    format, path, folder = task
    try:
        ranks = importer(format).read(path)
        return [_keep(rank, folder.with_name(f"{folder.name}-{place}")) for place, rank in enumerate(ranks)], None
    except TraceError as error:
        return [], f"left out: {error}"


def _keep(rank: ImportedRank, folder: Path) -> Part:
    """Writes the tables of a rank and lets go of them.

    Raises:
        TraceError: It has more groups than there can be.
    """
    from commlens.trace.writer import write_table

    folder.mkdir()
    for table, columns in rank.tables.items():
        fitting = {name: _fitting(rank.source, table, name, column) for name, column in columns.items()}
        write_table(folder, table, _named(fitting) if table == "collectives" else fitting)
    start = min((_earliest(rank, *each) for each in _TIMES), default=0)
    start = 0 if start == np.iinfo(np.int64).max else start
    return Part(rank.source, folder, rank.rank, rank.world_size, rank.info, rank.run, rank.notes, start, _rows(rank))


def _fitting(source: Path, table: str, name: str, column: Column) -> Column:
    """The column with as many distinct names as its codes have room for; the last stands for all others."""
    if TABLES[table][name] != "name16" or len(column[1]) <= _MOST_NAMES:
        return column
    codes, words = column
    if name == "group":
        raise TraceError(f"{source} tells of {len(words)} process groups, more than any job has; leave it out")
    return np.minimum(codes, _MOST_NAMES - 1), [*words[: _MOST_NAMES - 1], "..."]


def _named(columns: Mapping[str, Column]) -> dict[str, Column]:
    """Groups that the file does not name under one name that says so."""
    codes, words = columns["group"]
    return {**columns, "group": (codes, [word or UNNAMED for word in words])}


_TIMES: Final = (("collectives", "issued_ns"), ("kernels", "start_ns"), ("phases", "start_ns"))


def _earliest(rank: ImportedRank, table: str, column: str) -> int:
    values: Any = rank.tables.get(table, {}).get(column, np.zeros(0, np.int64))
    return int(values[values != MISSING].min(initial=np.iinfo(np.int64).max))


def _rows(rank: ImportedRank) -> int:
    firsts = [next(iter(columns.values())) for columns in rank.tables.values() if columns]
    return sum(len(column[0] if isinstance(column, tuple) else column) for column in firsts)


def _gathered(parts: Sequence[Part]) -> list[str]:
    """What is to be said of files, those of which the same is to be said together."""
    about: dict[str, list[Path]] = {}
    for part in parts:
        for note in part.notes:
            about.setdefault(note, []).append(part.source)
    several = {note: f"{len(paths)} files" if len(paths) > 1 else paths[0].name for note, paths in about.items()}
    return [f"{which}: {note}" for note, which in several.items()]


def _write_run(into: Path, run_id: str, format: str, ranks: dict[int, Part], notes: Sequence[str]) -> None:
    from commlens.trace.writer import write_rank_info, write_run_info

    parts = list(ranks.values())
    sizes = [part.world_size for part in parts if part.world_size is not None]
    complete = getattr(importer(format), "fill_members", None)
    if complete is not None:
        complete({rank: part.info for rank, part in ranks.items()})
    about = {key: value for part in reversed(parts) for key, value in part.run.items() if value is not None}
    for rank, part in ranks.items():
        folder = into / RANK_FOLDER.format(rank=rank)
        part.folder.rename(folder)
        info = {
            **part.info,
            "rank": rank,
            "world_size": part.world_size,
            "run_id": run_id,
            "imported": format,
            "source": str(part.source),
        }
        write_rank_info(folder, info)
    for left in into.glob("part-*"):
        for file in left.iterdir():
            file.unlink()
        left.rmdir()
    own = _gathered(parts)
    write_run_info(
        into,
        {
            **about,
            "run_id": run_id,
            "imported": format,
            "world_size": max([*sizes[:1], max(ranks) + 1]),
            "start_ns": min((part.start_ns for part in parts if part.start_ns), default=0),
            "notes": [*notes, *own],
            "files": [str(part.source) for part in parts],
            "format_version": FORMAT_VERSION,
        },
    )
