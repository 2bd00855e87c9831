"""A run as its folders show it now: the newest rows of each rank, read again and again while the job writes them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from commlens.errors import DamagedRunError
from commlens.trace.folders import RunFolder, find_run, read_folder
from commlens.trace.on_nodes import live_folder
from commlens.trace.rank import Rank
from commlens.trace.reader import Run, access_errors, merged
from commlens.trace.schema import TABLE_FILE
from commlens.trace.storage.files import FolderFiles
from commlens.trace.storage.places import is_remote
from commlens.trace.tail import Tail
from commlens.trace.windows import WindowTrace

_FOLLOWED = ("collectives", "phases", "overhead", "counters")


class RecentRank(Rank):
    """A rank of whose tables only the newest rows are read; deep windows are left alone."""

    def __init__(self, rank: Rank, tails: dict[str, Tail] | None) -> None:
        super().__init__(rank.rank, rank.path, rank.info, rank.files)
        self._tails = tails  # None where the files are not written to, but replaced: they are read whole

    @property
    def windows(self) -> list[WindowTrace]:
        """None: to read them takes long."""
        return []

    def _content(self, name: str) -> bytes:
        if self._tails is None:
            return super()._content(name) if name in _FOLLOWED else b""
        return self._tails[name].content() if name in self._tails else b""


class RecentRun:
    """The parts of one run that are followed.

    Args:
        paths: as of `open_run`: a run folder, a folder of runs (the newest is taken), or folders with parts of a run.
            Of a run that is recorded on its nodes: the ranks of this one, where it is one of them, else the packs.

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
            folder = read_folder(path if is_remote(path) else live_folder(path))
        except DamagedRunError:  # a job that is starting has written nothing yet
            return RunFolder(path)
        folder.ranks = {number: self._rank(rank) for number, rank in folder.ranks.items()}
        return folder

    def _rank(self, rank: Rank) -> RecentRank:
        if not isinstance(rank.files, FolderFiles):
            return RecentRank(rank, None)
        if rank.path not in self._tails:
            files = {name: rank.path / TABLE_FILE.format(table=name) for name in _FOLLOWED}
            self._tails[rank.path] = {name: Tail(path) for name, path in files.items()}
        return RecentRank(rank, self._tails[rank.path])
