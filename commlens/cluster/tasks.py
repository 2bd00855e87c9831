"""What workers run: an analyzer's function on some items."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, Any, Final, TypeVar, overload

from commlens.analyzers.held import Engine, Held, Here, Lengthy
from commlens.cluster import store

if TYPE_CHECKING:
    from commlens.cluster.engine import Cluster

T = TypeVar("T")
_PATHS: Final = 4096  # one for all items of a block


class Stored(Held[T]):
    """A sequence in files of the scratch folder, a block of items each."""

    def __init__(self, folder: Path, name: str, bounds: Sequence[int], engine: Cluster | None = None) -> None:
        self.folder, self.name, self.bounds = folder, name, tuple(bounds)  # where blocks begin, and the end
        self._engine = engine
        self._items: list[T | None] = [None] * self.bounds[-1]

    @property
    def engine(self) -> Engine:
        """The client's; on a worker, where this was sent to, the worker itself."""
        return self._engine or Here()

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder, "name": self.name, "bounds": self.bounds}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def __len__(self) -> int:
        return self.bounds[-1]

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[T]: ...
    def __getitem__(self, index: int | slice) -> T | Sequence[T]:
        """An item; of a slice a tuple."""
        if isinstance(index, slice):
            return tuple(self[place] for place in range(*index.indices(len(self))))
        place = index + len(self) if index < 0 else index
        if not 0 <= place < len(self):
            raise IndexError(index)
        item = self._items[place]
        if item is None:
            block = bisect_right(self.bounds, place) - 1
            lies = Place(block_path(self.folder, self.name, block), place - self.bounds[block], self._engine)
            item = self._items[place] = lies.brief() if self._engine is not None else lies()
        return item


@dataclass(frozen=True, slots=True)
class Place:
    """Where an item lies: its file, its number there, and the engine that removes the file when it goes itself."""

    path: Path
    number: int
    engine: Cluster | None

    def __call__(self) -> Any:
        """The whole item."""
        return store.take(self.path, self.number) if self.engine is None else self.engine.whole(self.path, self.number)

    def brief(self) -> Any:
        """The item, without long fields where it has any."""
        beside = _beside(self.path)
        if not beside.exists():
            return store.take(self.path, self.number)
        found = store.take(beside, self.number)
        return found.without_long(self) if isinstance(found, Lengthy) else found

    def __reduce__(self) -> Any:
        return Place, (self.path, self.number, None)


@lru_cache(_PATHS)
def _beside(path: Path) -> Path:
    """The same items without their long fields, in a file of their own."""
    return path.with_name(f"{path.name}.brief")


@lru_cache(_PATHS)
def block_path(folder: Path, name: str, block: int) -> Path:
    """File of a block of a sequence."""
    return folder / f"{name}-{block:05d}"


@dataclass(frozen=True)
class Call:
    """A function to be run on items of sequences.

    Attributes:
        function: what to run.
        held: its arguments' sequences that lie in the scratch folder; None where the items lie beside the call.
    """

    function: Callable[..., Any]
    held: tuple[Stored[Any] | None, ...]


@dataclass(frozen=True)
class Block:
    """The part of a call that one task does.

    Attributes:
        call: file of the call; after it, for each block, the items of the sequences that are not held.
        number: of the block.
        span: its first item, and the one after its last.
        out: files to write what is returned to, one for each part of it; () to send it home.
        split: what is returned are tuples, whose parts go to different files.
    """

    call: Path
    number: int
    span: tuple[int, int]
    out: tuple[Path, ...] = ()
    split: bool = False


@cache
def _watch() -> None:
    """Once for each worker that works for us."""
    Thread(target=store.keep_pages_few, args=(Event(),), daemon=True, name="commlens pages").start()


def run_block(block: Block) -> list[Any] | None:
    """Run a call on a block of its items; None where what it returned was written."""
    _watch()
    call: Call = store.take(block.call, 0)
    here: tuple[Sequence[Any] | None, ...] = store.take(block.call, 1 + block.number)
    columns = [
        each if held is None else [held[place] for place in range(*block.span)]
        for held, each in zip(call.held, here, strict=True)
    ]
    found = [call.function(*items) for items in zip(*columns, strict=True)]
    if block.out:
        for place, path in enumerate(block.out):
            _write(path, [each[place] for each in found] if block.split else found)
    return None if block.out else found


def _write(path: Path, items: Sequence[Any]) -> None:
    if any(isinstance(each, Lengthy) for each in items):
        brief = [each.without_long() if isinstance(each, Lengthy) else each for each in items]
        store.write(_beside(path), brief)
    store.write(path, items)


def sees(path: str) -> bool:
    """Whether this process can read a file."""
    return os.access(path, os.R_OK)
