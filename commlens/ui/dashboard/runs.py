"""The runs that a dashboard shows: opened when first asked for, read again while they grow."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final, NamedTuple

from commlens.analyzers.held import HERE, Engine
from commlens.analyzers.stages import Examined, examine
from commlens.analyzers.views.heat import Heat, find_heat
from commlens.analyzers.views.timeline import Timeline
from commlens.errors import CommlensError, RunNotFoundError
from commlens.trace import open_run
from commlens.trace.folders import read_info, runs_in
from commlens.trace.schema import ALIVE_FILE, RUN_FILE
from commlens.trace.storage.held import held_in
from commlens.trace.storage.places import canonical, is_remote
from commlens.trace.storage.remote import tree

POLL_S: Final = 2.0
MOST_LISTED: Final = 200
MOST_KEPT: Final = 3  # a large run takes a gigabyte
_PATIENCE: Final = 3  # a run is read again after so many times as long as reading it took


@dataclass(frozen=True)
class View:
    """What is shown of one run, as it was when it was read.

    Attributes:
        key: the run's name in addresses.
        examined: its report, and what it was made of.
        version: grows each time the run is read again.
        read_at: when that was, wall clock, s.
        growing: some rank has not ended.
        written_at: when a file of it was last written, wall clock, s.
        problem: why it could not be read again; "" where it could.
    """

    key: str
    examined: Examined
    version: int
    read_at: float
    growing: bool
    written_at: float
    problem: str = ""

    def again(self, **changes: Any) -> View:
        """The same with some fields changed; what was made of it is not made anew."""
        fresh = replace(self, **changes)
        fresh.__dict__.update({name: self.__dict__[name] for name in ("timeline", "heat") if name in self.__dict__})
        return fresh

    @cached_property
    def timeline(self) -> Timeline:
        """All ranks on one clock."""
        return Timeline(self.examined)

    @cached_property
    def heat(self) -> Heat | None:
        """Who waits for whom, step by step."""
        return find_heat(self.examined.ranks, self.examined.joined)


@dataclass
class _Entry:
    """One run of the list; `view` is None until it is asked for."""

    key: str
    paths: tuple[Path, ...]
    view: View | None = None
    version: int = 0  # grows for good: also where the view was let go and read anew
    seen: tuple[int, int, int] = (0, 0, 0)
    took_s: float = 0.0
    used_at: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)


class Runs:
    """The runs at the paths that were given, and no others.

    Args:
        paths: run folders, folders of runs, or files of other profilers; folders with parts of one run belong
            together.
        engine: where they are analysed.

    Attributes:
        unlisted: how many older runs of a folder there are besides.

    Raises:
        CommlensError: there is nothing at a path.
    """

    def __init__(self, paths: Sequence[Path], engine: Engine = HERE) -> None:
        self._engine = engine
        together, self.unlisted = _together(paths)
        self._entries = {entry.key: entry for entry in _entries(together)}

    @property
    def keys(self) -> tuple[str, ...]:
        """Names of the runs, the first the one that is shown first."""
        return tuple(self._entries)

    def view(self, key: str) -> View:
        """The run as it was last read; it is read now where it was not yet.

        Raises:
            CommlensError: it cannot be read.
            KeyError: there is no such run.
        """
        entry = self._entries[key]
        entry.used_at = time.monotonic()
        with entry.lock:
            view = entry.view
            if view is None:
                view = _read(entry, self._engine)
                entry.used_at = time.monotonic()  # reading may have taken longer than others were left alone
                self._forget_others()
            return view

    def version(self, key: str) -> int:
        """Of what is shown now; 0 where the run was not read yet."""
        return self._entries[key].version if key in self._entries else 0

    def follow(self, stopped: threading.Event) -> None:
        """Read runs again while they grow, until stopped."""
        with ThreadPoolExecutor(1, "read again") as apart:
            while not stopped.wait(POLL_S):
                for entry in self._entries.values():
                    if (view := entry.view) is not None and view.growing and _due(entry, view):
                        # A mistake of ours in one run ends neither this thread nor the others' refreshing.
                        _tell(entry, view, apart.submit(_read_again, entry, self._engine).exception())

    def _forget_others(self) -> None:
        kept = [entry for entry in self._entries.values() if entry.view is not None]
        for entry in sorted(kept, key=lambda each: -each.used_at)[MOST_KEPT:]:
            entry.view = None


def _together(paths: Sequence[Path]) -> tuple[list[list[Path]], int]:
    """The parts of each run, and how many runs are left out because they are too many."""
    found: dict[object, list[Path]] = {}
    unlisted = 0
    for path in paths:
        folders = runs_in(path)
        if len(folders) == 1:
            _add_part(found, folders[0])
        elif not folders:
            found.setdefault(path, [path])
        else:
            unlisted += len(folders[MOST_LISTED:])
            for folder in folders[:MOST_LISTED]:
                found.setdefault(folder, [folder])
    if not found:
        raise RunNotFoundError("no run given; next: commlens run -- torchrun ...")
    return list(found.values()), unlisted


def _add_part(found: dict[object, list[Path]], folder: Path) -> None:
    """A folder beside others of its run; one that holds the same ranks is a copy, and stands by itself."""
    others = found.setdefault(_identity(folder), [])
    if canonical(folder) in {canonical(other) for other in others}:
        return
    if _ranks(folder) & {name for other in others for name in _ranks(other)}:
        found.setdefault(folder, [folder])
    else:
        others.append(folder)


def _ranks(folder: Path) -> set[str]:
    return {files.path.name for files in held_in(folder).folders if files.path.name.startswith("rank-")}


def _entries(together: Sequence[Sequence[Path]]) -> Iterator[_Entry]:
    """One entry a run; keys are distinct, and text that an address can hold."""
    taken: set[str] = set()
    for parts in together:
        name = canonical(parts[0]).name.encode(errors="replace").decode() or "run"
        key = next(
            each for number in range(len(together) + 1) if (each := f"{name}~{number}" if number else name) not in taken
        )
        taken.add(key)
        yield _Entry(key, tuple(dict.fromkeys(parts)))


def _identity(folder: Path) -> object:
    """The same for folders that hold parts of one run."""
    try:
        name = read_info(folder / RUN_FILE).get("run_id")
    except (CommlensError, OSError):
        return folder
    return name if isinstance(name, str) else folder


def _read(entry: _Entry, engine: Engine) -> View:
    begun = time.monotonic()
    # Before reading: what is written meanwhile is seen the next time. What is not there, opening says better.
    seen = _look(entry.paths) if all(is_remote(path) or path.exists() for path in entry.paths) else _Seen()
    entry.seen = seen.signature
    run = open_run(list(entry.paths))
    growing = run.info.get("imported") is None and any(_alive(rank.info) for rank in run.ranks.values())
    written_at = seen.written_ns / 1e9
    view = View(entry.key, examine(run, engine), entry.version + 1, time.time(), growing or not run.ranks, written_at)
    _ = view.timeline, view.heat  # now, not when a page first asks for them
    entry.view, entry.version = view, view.version
    entry.took_s = time.monotonic() - begun
    return view


def _read_again(entry: _Entry, engine: Engine = HERE) -> None:
    """What was read stays where the run cannot be read any more, and the page says so."""
    view = entry.view
    if view is None:  # let go meanwhile
        return
    try:
        seen = _look(entry.paths)
        if seen.signature != entry.seen or view.problem:
            _read(entry, engine)
        else:
            entry.view = view.again(written_at=seen.written_ns / 1e9)
    except (CommlensError, OSError) as error:
        _keep(entry, view, f"the run cannot be read any more: {error}")


def _tell(entry: _Entry, view: View, error: BaseException | None) -> None:
    if error is not None:
        logging.getLogger("commlens").error("internal error: %s: %s", type(error).__name__, error)
        _keep(entry, view, "the run could not be read again: internal error, see the terminal of the dashboard")


def _keep(entry: _Entry, view: View, problem: str) -> None:
    """What was read stays, with the problem beside it, which is said once."""
    if view.problem != problem:
        entry.version += 1
        entry.view = view.again(version=entry.version, problem=problem)


def _due(entry: _Entry, view: View) -> bool:
    return time.time() - view.read_at > _PATIENCE * entry.took_s


def _alive(info: Mapping[str, object]) -> bool:
    """Its recording has no end: it goes on, or was killed."""
    return not info.get("end")


class _Seen(NamedTuple):
    """What is seen of a run's files: a signature that changes when something is recorded, and their newest time, ns."""

    signature: tuple[int, int, int] = (0, 0, 0)
    written_ns: int = 0


def _look(paths: Sequence[Path]) -> _Seen:
    """The number of files, their bytes, their newest time; signs of life are nothing recorded.

    Raises:
        RunNotFoundError: a folder has gone.
    """
    files = total = newest = alive = 0
    for path in paths:
        for name, size, modified_ns in _files(path):
            alive = max(alive, modified_ns)
            if name != ALIVE_FILE:
                files, total, newest = files + 1, total + size, max(newest, modified_ns)
    return _Seen((files, total, newest), alive)


def _files(path: Path) -> Iterator[tuple[str, int, int]]:
    """Name, bytes and time of each file at or below a path."""
    if is_remote(path):
        yield from ((each.path.name, each.size, each.modified_ns) for each in tree(path))
        return
    if not path.exists():
        raise RunNotFoundError(f"{path} is not there any more")
    for file in path.glob("**/*") if path.is_dir() else [path]:
        try:
            found = file.stat()
        except OSError:  # gone since it was listed
            continue
        yield file.name, found.st_size, found.st_mtime_ns
