"""Functions of many ranks or communicators, run wherever those are held.

Analysis is pure functions of one rank, or of one communicator, over sequences of them. Ordinarily the sequences are
tuples and `each` and `keep` are loops. On a cluster (`commlens.cluster`) they are `Held`: the same functions then run
on the workers, and only what `each` returns comes here. A `Held` is still a sequence, so code that takes one item
does not care.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final, Protocol, TypeVar, overload

T = TypeVar("T")
R = TypeVar("R")


class Lengthy:
    """A record some of whose fields hold a value for each row of a rank, or for each collective of a communicator.

    One that lies elsewhere comes here without them: what asks all ranks for something short costs little memory. A long
    field is fetched each time it is looked at, and not kept, so take it once; a function of many goes through `each`.
    """

    long: ClassVar[frozenset[str]]
    _whole: Callable[[], Any]  # in a record without its long fields alone

    def __init_subclass__(cls, long: Sequence[str]) -> None:
        cls.long = frozenset(long)

    if not TYPE_CHECKING:  # a field that does not exist should be an error

        def __getattr__(self, name: str) -> Any:
            """A field that is not here."""
            if name not in type(self).long or "_whole" not in self.__dict__:
                raise AttributeError(f"{type(self).__name__} has no {name}")
            return getattr(self._whole(), name)

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Sent elsewhere it is the whole one."""
        return (self._whole, ()) if "_whole" in self.__dict__ else super().__reduce_ex__(protocol)

    def without_long(self, whole: Callable[[], Any] | None = None) -> Lengthy:
        """This record without its long fields, which `whole` fetches; it is pickled as a call of that."""
        found = object.__new__(type(self))
        found.__dict__.update({name: value for name, value in vars(self).items() if name not in self.long})
        if whole is not None:
            found.__dict__["_whole"] = whole
        return found


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
