"""Functions of many ranks or communicators, run wherever those are held.

Analysis is pure functions of one rank, or of one communicator, over sequences of them. Ordinarily the sequences are
tuples and `each` and `keep` are loops. On a cluster (`commlens.cluster`) they are `Held`: the same functions then run
on the workers, and only what `each` returns comes here. A `Held` is still a sequence, so code that takes one item
does not care.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol, TypeVar, overload

T = TypeVar("T")
R = TypeVar("R")


class Engine(Protocol):
    """What runs a function of the items of sequences of one length, item by item."""

    def apart(self) -> Engine:
        """The same for one analysis: what it keeps goes with the last of it that is used."""

    def each(self, function: Callable[..., R], *sequences: Sequence[Any]) -> list[R]:
        """What the function returns, here; it should be small."""

    def keep(self, function: Callable[..., R], *sequences: Sequence[Any]) -> Sequence[R]:
        """What the function returns, left where it was made."""

    def keep_parts(
        self, parts: int, function: Callable[..., tuple[Any, ...]], *sequences: Sequence[Any]
    ) -> tuple[Sequence[Any], ...]:
        """As `keep`, of a function that returns a tuple: a sequence for each of its parts."""


class Held(Sequence[T]):
    """A sequence whose items lie elsewhere; taking one brings it here."""

    @property
    @abstractmethod
    def engine(self) -> Engine:
        """What runs functions where the items lie."""

    @abstractmethod
    def __len__(self) -> int:
        """Number of items."""

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[T]: ...
    @abstractmethod
    def __getitem__(self, index: int | slice) -> T | Sequence[T]:
        """An item, or some."""


class Here:
    """This process and its memory."""

    def apart(self) -> Here:
        """Memory goes by itself."""
        return self

    def each(self, function: Callable[..., R], *sequences: Sequence[Any]) -> list[R]:
        """A loop."""
        return [function(*items) for items in zip(*sequences, strict=True)]

    def keep(self, function: Callable[..., R], *sequences: Sequence[Any]) -> Sequence[R]:
        """A tuple."""
        return tuple(self.each(function, *sequences))

    def keep_parts(
        self, parts: int, function: Callable[..., tuple[Any, ...]], *sequences: Sequence[Any]
    ) -> tuple[Sequence[Any], ...]:
        """Tuples."""
        found = self.each(function, *sequences)
        return tuple(tuple(item[part] for item in found) for part in range(parts))


HERE: Final = Here()


def each(function: Callable[..., R], *sequences: Sequence[Any]) -> list[R]:
    """What a function of the items of sequences (of one length) returns, in order; small, and picklable.

    Args:
        function: of one item of each sequence; on a cluster it is pickled, so one of a module, or a `partial` of one
            whose arguments are small or `Held`.
        sequences: where any of them is `Held` the function runs where that one's items lie.
    """
    return engine_of(*sequences).each(function, *sequences)


def keep(function: Callable[..., R], *sequences: Sequence[Any]) -> Sequence[R]:
    """As `each`, but what is returned may be large: it stays where it was made."""
    return engine_of(*sequences).keep(function, *sequences)


def engine_of(*sequences: Sequence[Any]) -> Engine:
    """What runs functions of these."""
    return next((sequence.engine for sequence in sequences if isinstance(sequence, Held)), HERE)


def keep_parts(
    parts: int, function: Callable[..., tuple[Any, ...]], *sequences: Sequence[Any]
) -> tuple[Sequence[Any], ...]:
    """As `keep`, of a function that returns a tuple of so many parts: a sequence for each of them."""
    return engine_of(*sequences).keep_parts(parts, function, *sequences)
