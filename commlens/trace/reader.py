"""Opening a run: the one door to what was recorded."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, cast

from commlens.errors import RunNotFoundError, TraceError
from commlens.trace.calibration import Calibration, read_calibration
from commlens.trace.folders import RunFolder, find_run, fuller, holds_run, read_folder
from commlens.trace.importers.rank_pattern import rank_pattern
from commlens.trace.rank import Rank
from commlens.trace.sampling import left_out
from commlens.trace.storage.places import PathLike, canonical, is_remote, place

# Beyond the largest job on earth; a damaged number must not make a list of it.
_MOST_RANKS: Final = 10_000_000


@dataclass
class Run:
    """A run, possibly merged from several folders.

    Attributes:
        path: Folder of the run, the first one given.
        info: Content of run.json; empty where it is absent or damaged.
        ranks: The ranks that can be read, ascending.
        world_size: Number of ranks the job had.
        run_id: Name of the run, the same in all its folders; "" where not known.
        damaged: Ranks whose rank.json cannot be used, ascending.
        notes: What a reader of results should know, one line each.
        calibration: Measured peaks, of the first folder that holds any; None where none does.
    """

    path: Path
    info: dict[str, Any]
    ranks: dict[int, Rank]
    world_size: int
    run_id: str
    damaged: list[int] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    calibration: Calibration | None = None

    @property
    def source(self) -> str:
        """Where it was recorded, or the files it was imported from."""
        files = [str(file) for file in self.info.get("files") or []]
        return str(self.path) if not files else files[0] if len(files) == 1 else os.path.commonpath(files)

    @property
    def absent(self) -> list[int]:
        """Ranks of the job of which nothing can be read, ascending."""
        return [rank for rank in range(self.world_size) if rank not in self.ranks]

    @property
    def sampled_out(self) -> list[int]:
        """Those of them that were left out on purpose, see `sampling`; ascending."""
        out = set(left_out(self.info.get("sampled_ranks"), self.world_size))
        return [rank for rank in self.absent if rank in out and rank not in self.damaged]

    @property
    def missing(self) -> list[int]:
        """Those of them that were not, ascending."""
        out = set(self.sampled_out)
        return [rank for rank in self.absent if rank not in out]


def open_run(
    path: PathLike | Sequence[PathLike],
    *,
    rank_regex: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Run:
    """Opens a recorded run, or files of other profilers. Tables are read when first asked for.

    Args:
        path: A run folder, a folder of runs (the newest is taken), or several
            paths that hold parts of the same run, such as node-local folders;
            on this machine or, as "s3://bucket/run", where fsspec reaches.
            Or files of another profiler, folders of them, or patterns.
        rank_regex: Where files of another profiler do not say which rank they
            are: a regular expression whose first group finds it in their names.
        progress: Told how many files are read, and of how many, after each.

    Raises:
        RunNotFoundError: There is no run at a path.
        DamagedRunError: Nothing readable is left of it.
        NewerFormatError: A newer commlens wrote it.
        TraceError: Paths hold different runs, or may not be read.
        UsageError: It cannot be told which ranks files of another profiler are;
            `rank_regex` is no pattern with a group; or what fsspec needs for an address is not installed.
        WriteError: There is no room for what was read of files of another profiler.
    """
    one = isinstance(path, str | os.PathLike) or is_remote(path)
    paths = [place(cast(PathLike, path))] if one else [place(each) for each in cast(Sequence[PathLike], path)]
    if not paths:
        raise RunNotFoundError("no path given; give the folder of a run")
    if rank_regex is not None:
        rank_pattern(rank_regex)  # wrong on a recorded run, too, though it needs none
    with access_errors():
        if not any(map(holds_run, paths)):
            from commlens.trace.importers.cache import cached_run
            from commlens.trace.importers.files import files_in

            return merged([read_folder(cached_run(files_in(paths), rank_regex, progress))])
        return merged(_distinct([_open_folder(each) for each in paths]))


@contextmanager
def access_errors() -> Iterator[None]:
    """What may not be read is a TraceError."""
    try:
        yield
    except OSError as error:
        raise TraceError(
            f"cannot read {error.filename}: {error.strerror}; make it readable for this user and try again"
        ) from error


def _open_folder(path: Path) -> RunFolder:
    found, notes = find_run(path)
    folder = read_folder(found)
    folder.notes = notes + folder.notes
    return folder


def _distinct(folders: list[RunFolder]) -> list[RunFolder]:
    """Each folder once, all of the same run."""
    folders = list({canonical(folder.path): folder for folder in folders}.values())
    first = folders[0]
    for other in folders[1:]:
        if other.run_id != first.run_id or first.run_id is None:
            raise TraceError(
                f"{first.path} and {other.path} are different runs ({first.run_id or 'unnamed'} and"
                f" {other.run_id or 'unnamed'}); give folders of one run"
            )
    return folders


def merged(folders: list[RunFolder]) -> Run:
    """The run that folders hold parts of."""
    notes = [note for folder in folders for note in folder.notes]
    ranks = _merged_ranks(folders, notes)
    info = next((folder.info for folder in folders if folder.info), {})
    notes += [str(note) for note in info.get("notes") or []]
    if not info:
        notes += [f"{folder.problem}; the run is described by its ranks" for folder in folders]
    damaged = {rank for folder in folders for rank in folder.damaged} - ranks.keys()
    return Run(
        path=folders[0].path,
        info=info,
        ranks=ranks,
        world_size=_world_size(info, ranks, damaged),
        run_id=folders[0].run_id or "",
        damaged=sorted(damaged),
        notes=notes,
        calibration=_calibration(folders, notes),
    )


def _calibration(folders: list[RunFolder], notes: list[str]) -> Calibration | None:
    path = next((folder.calibration for folder in folders if folder.calibration is not None), None)
    if path is None:
        return None
    try:
        return read_calibration(path)
    except TraceError as error:
        notes.append(f"the calibration is left out: {error}")
        return None


def _merged_ranks(folders: list[RunFolder], notes: list[str]) -> dict[int, Rank]:
    ranks: dict[int, Rank] = {}
    for folder in folders:
        for number, rank in folder.ranks.items():
            ranks[number] = fuller(ranks[number], rank, notes) if number in ranks else rank
    return dict(sorted(ranks.items()))


def _world_size(info: dict[str, Any], ranks: dict[int, Rank], damaged: set[int]) -> int:
    """As run.json says, else as a rank does; never less than the ranks there are."""
    said = [each.get("world_size") for each in (info, *(rank.info for rank in ranks.values()))]
    sizes = [size for size in said if type(size) is int and 1 <= size <= _MOST_RANKS]
    return max([*sizes[:1], *(rank + 1 for rank in (*ranks, *damaged)), 0])
