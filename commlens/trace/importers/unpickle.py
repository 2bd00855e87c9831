"""Reads a pickle of plain values and runs nothing.

A pickle is a program. This machine knows the instructions that build numbers, strings, bytes, lists, tuples,
dicts and sets; it has none that could import, call or look anything up, so there is nothing to escape from.
What a file makes it do is bounded: instructions, bytes (by the file), and values as they come out.
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, Final

from commlens.errors import TraceError

_MOST_STEPS: Final = 5_000_000  # a Flight Recorder entry with its stack takes about a hundred
_MOST_VALUES: Final = 20_000_000  # a value that is used twice counts twice
_NEWEST: Final = 5
_CODE: Final = (
    pickle.GLOBAL + pickle.STACK_GLOBAL + pickle.INST + pickle.OBJ + pickle.NEWOBJ + pickle.NEWOBJ_EX + pickle.REDUCE
    + pickle.BUILD + pickle.EXT1 + pickle.EXT2 + pickle.EXT4 + pickle.PERSID + pickle.BINPERSID
)  # fmt: skip
_BYTE, _SHORT, _INT, _LENGTH, _LONG_LENGTH = map(struct.Struct, ("<B", "<H", "<i", "<I", "<Q"))
_FLOAT: Final = struct.Struct(">d")
_Values = list[Any]


class _NamesCodeError(Exception):
    pass


class _TooLargeError(Exception):
    pass


def load_plain(path: Path, data: bytes) -> Any:
    """The value that the pickle `data` (protocol 2 to 5) holds; walking it as a tree ends.

    Raises:
        TraceError: It names code, is damaged, or unfolds to more than any file of its kind holds; `path` is
            named in the message.
    """
    try:
        value = _Machine(data).run()
        if _unfolded(value) > _MOST_VALUES:
            raise _TooLargeError
    except _NamesCodeError:
        raise TraceError(
            f"{path} is a pickle that names code to run, which a dump never does; trust neither it nor its source"
        ) from None
    except (_TooLargeError, MemoryError):
        raise TraceError(f"{path} unfolds to more than any dump holds; leave it out") from None
    except (LookupError, ValueError, TypeError, struct.error):
        raise TraceError(f"{path} is a truncated or damaged pickle of plain values; dump it again") from None
    return value


class _Machine:
    """The stack, the marks on it, and what was put aside to be fetched again."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0
        self.stack: _Values = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        data = self.data
        for _ in range(_MOST_STEPS):
            code = data[self.at]
            self.at += 1
            if code == pickle.STOP[0]:
                return self.stack.pop()
            _ACTIONS[code](self)
        raise _TooLargeError

    def number(self, form: struct.Struct) -> Any:
        (value,) = form.unpack_from(self.data, self.at)
        self.at += form.size
        return value

    def counted(self, length: struct.Struct) -> bytes:
        count = self.number(length)
        start, self.at = self.at, self.at + count
        if count < 0 or self.at > len(self.data):
            raise ValueError(count)
        return self.data[start : self.at]

    def since_mark(self) -> _Values:
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def last(self, count: int) -> _Values:
        if count > len(self.stack):
            raise IndexError(count)
        items = self.stack[-count:]
        del self.stack[-count:]
        return items

    def top(self, kind: type) -> Any:
        if type(self.stack[-1]) is not kind:
            raise TypeError(kind)
        return self.stack[-1]


_Action = Callable[[_Machine], object]


def _names_code(machine: _Machine) -> None:
    raise _NamesCodeError


def _unknown(machine: _Machine) -> None:
    raise ValueError(machine.at)


def _proto(machine: _Machine) -> None:
    if machine.number(_BYTE) > _NEWEST:
        raise ValueError(machine.at)


def _hashable(items: _Values) -> _Values:
    """Keys: plain ones only, a tuple nested a million times would overflow the interpreter's stack."""
    if any(isinstance(item, Collection) and not isinstance(item, str | bytes) for item in items):
        raise TypeError(items)
    return items


def _pairs(items: _Values) -> dict[Any, Any]:
    return dict(zip(_hashable(items[::2]), items[1::2], strict=True))


def _put(key: Callable[[_Machine], int]) -> _Action:
    return lambda machine: machine.memo.__setitem__(key(machine), machine.stack[-1])


def _get(length: struct.Struct) -> _Action:
    return lambda machine: machine.stack.append(machine.memo[machine.number(length)])


def _push(make: Callable[[_Machine], Any]) -> _Action:
    return lambda machine: machine.stack.append(make(machine))


def _sized(length: struct.Struct, make: Callable[[bytes], Any]) -> _Action:
    return _push(lambda machine: make(machine.counted(length)))


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogatepass")


_KNOWN: Final[dict[bytes, _Action]] = {
    pickle.PROTO: _proto,
    pickle.FRAME: lambda machine: machine.number(_LONG_LENGTH),
    pickle.NONE: _push(lambda _: None),
    pickle.NEWTRUE: _push(lambda _: True),
    pickle.NEWFALSE: _push(lambda _: False),
    pickle.BININT: _push(lambda machine: machine.number(_INT)),
    pickle.BININT1: _push(lambda machine: machine.number(_BYTE)),
    pickle.BININT2: _push(lambda machine: machine.number(_SHORT)),
    pickle.LONG1: _sized(_BYTE, pickle.decode_long),
    pickle.LONG4: _sized(_INT, pickle.decode_long),
    pickle.BINFLOAT: _push(lambda machine: machine.number(_FLOAT)),
    pickle.SHORT_BINUNICODE: _sized(_BYTE, _text),
    pickle.BINUNICODE: _sized(_LENGTH, _text),
    pickle.BINUNICODE8: _sized(_LONG_LENGTH, _text),
    pickle.SHORT_BINBYTES: _sized(_BYTE, bytes),
    pickle.BINBYTES: _sized(_LENGTH, bytes),
    pickle.BINBYTES8: _sized(_LONG_LENGTH, bytes),
    pickle.EMPTY_TUPLE: _push(lambda _: ()),
    pickle.EMPTY_LIST: _push(lambda _: []),
    pickle.EMPTY_DICT: _push(lambda _: {}),
    pickle.EMPTY_SET: _push(lambda _: set()),
    pickle.MARK: lambda machine: machine.marks.append(len(machine.stack)),
    pickle.TUPLE: _push(lambda machine: tuple(machine.since_mark())),
    pickle.TUPLE1: _push(lambda machine: tuple(machine.last(1))),
    pickle.TUPLE2: _push(lambda machine: tuple(machine.last(2))),
    pickle.TUPLE3: _push(lambda machine: tuple(machine.last(3))),
    pickle.FROZENSET: _push(lambda machine: frozenset(_hashable(machine.since_mark()))),
    pickle.APPEND: lambda machine: _extend(machine, machine.last(1)),
    pickle.APPENDS: lambda machine: _extend(machine, machine.since_mark()),
    pickle.SETITEM: lambda machine: _update(machine, machine.last(2)),
    pickle.SETITEMS: lambda machine: _update(machine, machine.since_mark()),
    pickle.ADDITEMS: lambda machine: _add(machine, machine.since_mark()),
    pickle.BINPUT: _put(lambda machine: machine.number(_BYTE)),
    pickle.LONG_BINPUT: _put(lambda machine: machine.number(_LENGTH)),
    pickle.MEMOIZE: _put(lambda machine: len(machine.memo)),
    pickle.BINGET: _get(_BYTE),
    pickle.LONG_BINGET: _get(_LENGTH),
}
