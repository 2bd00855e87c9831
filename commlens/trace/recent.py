"""A run as its folders show it now: the newest rows of each rank, read again and again while the job writes them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from commlens.errors import DamagedRunError
from commlens.trace.folders import RunFolder, find_run, read_folder
from commlens.trace.rank import Rank
from commlens.trace.reader import Run, access_errors, merged
from commlens.trace.schema import TABLE_FILE
from commlens.trace.tail import Tail
from commlens.trace.windows import WindowTrace

_FOLLOWED = ("collectives", "phases", "overhead", "counters")


class RecentRank(Rank):
    """A rank of whose tables only the newest rows are read; deep windows are left alone."""

    def __init__(self, rank: int, path: Path, info: dict[str, Any], tails: dict[str, Tail]) -> None:
        super().__init__(rank, path, info)
        self._tails = tails

    @property
    def windows(self) -> list[WindowTrace]:
        """None: to read them takes long."""
        return []

    def _content(self, name: str) -> bytes:
        return self._tails[name].content() if name in self._tails else b""


class RecentRun:
    """The parts of one run that are followed.

    Args:
        paths: as of `open_run`: a run folder, a folder of runs (the newest is taken), or folders with parts of a run.

    Raises:
        RunNotFoundError: There is no run at a path.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        with access_errors():
            self.folders = list(dict.fromkeys(find_run(path)[0] for path in paths))
        self._tails: dict[Path, dict[str, Tail]] = {}

    def read(self) -> Run:
        """What is there now.

        Raises:
            TraceError: It cannot be read.
        """
        with access_errors():
            return merged([self._followed(path) for path in self.folders])

    def _followed(self, path: Path) -> RunFolder:
        try:
            folder = read_folder(path)
        except DamagedRunError:  # a job that is starting has written nothing yet
            return RunFolder(path)
        folder.ranks = {number: self._rank(rank) for number, rank in folder.ranks.items()}
        return folder

    def _rank(self, rank: Rank) -> RecentRank:
        if rank.path not in self._tails:
            files = {name: rank.path / TABLE_FILE.format(table=name) for name in _FOLLOWED}
            self._tails[rank.path] = {name: Tail(path) for name, path in files.items()}
        return RecentRank(rank.rank, rank.path, rank.info, self._tails[rank.path])
