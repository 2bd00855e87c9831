"""A Dask cluster as the engine of analysis."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from itertools import count, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from commlens.cluster import store
from commlens.cluster.tasks import Block, Call, Stored, block_path, run_block
from commlens.errors import ClusterError

if TYPE_CHECKING:
    from distributed import Client, Future

R = TypeVar("R")
Progress = Callable[[str, int, int], None]  # told what is done, how many blocks of it, and of how many
_BLOCKS: Final = 8  # of a call for each worker: enough to balance, few enough for the scheduler
_MOST: Final = 32  # items of a block
_TASKS: Final = 16  # of a call that keeps nothing, for each worker at most: several blocks go together
_RETRIES: Final = 2
_WHOLE: Final = 32  # items with their long fields that are looked at here, by turns


class Cluster:
    """Runs functions on workers; what they keep lies in a folder that client and workers share."""

    def __init__(self, client: Client, folder: Path, workers: int, progress: Progress | None = None) -> None:
        self._client, self._folder, self._workers = client, folder, workers
        self._progress = progress
        self._numbers = count()  # of calls: a dashboard asks from several threads
        self._whole: dict[tuple[Path, int], Any] = {}

    def apart(self) -> Cluster:
        """The same with a folder of its own, which goes once nothing that is kept in it is used any more."""
        folder = Path(tempfile.mkdtemp(dir=self._folder))
        found = Cluster(self._client, folder, self._workers, self._progress)
        weakref.finalize(found, _remove, folder)
        return found

    def each(self, function: Callable[..., R], *sequences: Sequence[Any]) -> list[R]:
        """What a function returns, in order."""
        number, bounds = next(self._numbers), self._fewer(self._bounds(sequences))
        found = self._run(number, bounds, function, sequences, 0, split=False)
        return [item for block in found for item in block]

    def keep(self, function: Callable[..., R], *sequences: Sequence[Any]) -> Sequence[R]:
        """As `each`, left in the scratch folder."""
        (kept,) = self._kept(1, function, sequences, split=False)
        return kept

    def keep_parts(
        self, parts: int, function: Callable[..., tuple[Any, ...]], *sequences: Sequence[Any]
    ) -> tuple[Sequence[Any], ...]:
        """As `keep`, a sequence for each part of what the function returns."""
        return self._kept(parts, function, sequences, split=True)

    def whole(self, path: Path, number: int) -> Any:
        """An item of a file with its long fields. It is forgotten soon: few are looked at here, again and again."""
        found = self._whole.get((path, number))
        if found is None:
            if len(self._whole) >= _WHOLE:
                self._forget()
            found = self._whole[path, number] = store.take(path, number)
        return found

    def _forget(self) -> None:
        """Let go of what was taken from the folder's files, but for what is used."""
        self._whole = {}
        store.forget(self._folder)

    def _kept(
        self, parts: int, function: Callable[..., Any], sequences: Sequence[Sequence[Any]], split: bool
    ) -> tuple[Stored[Any], ...]:
        number, bounds = next(self._numbers), self._bounds(sequences)
        self._run(number, bounds, function, sequences, parts, split)
        return tuple(Stored(self._folder, _name(number, part), bounds, self) for part in range(parts))

    def _run(
        self,
        number: int,
        bounds: Sequence[int],
        function: Callable[..., Any],
        sequences: Sequence[Sequence[Any]],
        parts: int,
        split: bool,
    ) -> list[Any]:
        """What each block of a call returned; `number` names its files."""
        self._forget()
        store.let_go_of_pages()
        spans = list(pairwise(bounds))
        held = tuple(each if isinstance(each, Stored) else None for each in sequences)
        here = [tuple(None if isinstance(s, Stored) else s[slice(*span)] for s in sequences) for span in spans]
        call = block_path(self._folder, "call", number)
        store.write(call, [Call(function, held), *here])
        blocks = []
        for place, span in enumerate(spans):
            out = tuple(block_path(self._folder, _name(number, part), place) for part in range(parts))
            blocks.append(Block(call, place, span, out, split))
        return self._done(_said(function), blocks)

    def _bounds(self, sequences: Sequence[Sequence[Any]]) -> list[int]:
        """Blocks as those of the first sequence that is held, so that a task opens few files."""
        items = len(sequences[0])
        for each in sequences:
            if len(each) != items:
                raise ValueError(f"sequences of {items} and {len(each)} items")
            if isinstance(each, Stored):
                return list(each.bounds)
        size = min(max(items // (_BLOCKS * self._workers), 1), _MOST)
        return [*range(0, items, size), items]

    def _fewer(self, bounds: Sequence[int]) -> list[int]:
        """Several blocks together where there are many: what is short costs more to hand out than to do."""
        together = max((len(bounds) - 1) // (_TASKS * self._workers), 1)
        return [*bounds[:-1:together], bounds[-1]]

    def _done(self, said: str, blocks: Sequence[Block]) -> list[Any]:
        """What tasks returned, in order."""
        futures = self._client.map(run_block, blocks, retries=_RETRIES, pure=False, key=said)
        with ExitStack() as broken_off:
            broken_off.callback(self._client.cancel, futures, force=True)
            for number, _ in enumerate(_as_completed(self._client, futures), 1):
                if self._progress is not None:
                    self._progress(said, number, len(blocks))
            found = self._client.gather(futures)  # at once: one by one costs the client milliseconds each
            broken_off.pop_all()
        return list(found)


def _remove(folder: Path) -> None:
    store.forget(folder)
    shutil.rmtree(folder, ignore_errors=True)


def _name(number: int, part: int) -> str:
    """Of what a call keeps."""
    return f"{number:04d}.{part}"


def _said(function: Callable[..., Any]) -> str:
    """What a function is called, for progress and Dask's own pages."""
    return str(getattr(getattr(function, "func", function), "__name__", "analysis")).strip("_")


def _as_completed(client: Client, futures: Sequence[Future[Any]]) -> Iterator[Future[Any]]:
    """Each future once it is done; what a task raises is raised here.

    Raises:
        ClusterError: workers died of a task again and again.
    """
    from distributed import as_completed
    from distributed.scheduler import KilledWorker

    for future in as_completed(futures, loop=client.loop):
        if future.status in ("cancelled", "lost"):
            raise ClusterError("the scheduler went away, or dropped this analysis; see its log, then run this again")
        error = future.exception() if future.status != "finished" else None
        if isinstance(error, KilledWorker):
            raise ClusterError(
                f"workers died again and again of the same part of the analysis ({error.last_worker.address} last):"
                " give each more memory, or take fewer of them on a machine"
            )
        if error is not None:
            raise error
        yield future
