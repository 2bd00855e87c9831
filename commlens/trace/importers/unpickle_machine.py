"""The machine that runs a pickle of plain values: a stack, and a table of the instructions it knows.

A pickle is a program. The table has what builds numbers, strings, bytes, lists, tuples, dicts and sets;
nothing that could import, call or look anything up, so there is nothing to escape from.
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Callable
from typing import Any, Final

_CODES: Final = (
    pickle.GLOBAL, pickle.STACK_GLOBAL, pickle.INST, pickle.OBJ, pickle.NEWOBJ, pickle.NEWOBJ_EX, pickle.REDUCE,
    pickle.BUILD, pickle.EXT1, pickle.EXT2, pickle.EXT4, pickle.PERSID, pickle.BINPERSID,
)  # fmt: skip
_MOST_STEPS: Final = 5_000_000  # a Flight Recorder entry with its stack takes about a hundred
_NEWEST: Final = 5
_BYTE, _SHORT, _INT, _LENGTH, _LONG_LENGTH = map(struct.Struct, ("<B", "<H", "<i", "<I", "<Q"))
_FLOAT: Final = struct.Struct(">d")
_Values = list[Any]


class NamesCodeError(Exception):
    """An instruction would import or call something."""


class TooLargeError(Exception):
    """The program is longer than any file's."""


class Machine:
    """The stack, the marks on it, and what was put aside to be fetched again."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0
        self.stack: _Values = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        """The value on top of the stack when the program stops.

        Raises:
            NamesCodeError: The program names code.
            TooLargeError: It does not stop soon enough.
            LookupError, ValueError, TypeError, struct.error: It is no program of plain values, or cut off.
        """
        data = self.data
        for _ in range(_MOST_STEPS):
            code = data[self.at]
            self.at += 1
            if code == pickle.STOP[0]:
                return self.stack.pop()
            _ACTIONS[code](self)
        raise TooLargeError

    # What the instructions are made of. `form` and `length` say how a number is written.

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


_Action = Callable[[Machine], object]


def _names_code(machine: Machine) -> None:
    raise NamesCodeError


def _unknown(machine: Machine) -> None:
    raise ValueError(machine.at)


def _proto(machine: Machine) -> None:
    if machine.number(_BYTE) > _NEWEST:
        raise ValueError(machine.at)


def _plain(keys: _Values) -> _Values:
    """No containers: hashing a tuple nested a million times would overflow the interpreter's own stack."""
    if any(isinstance(key, tuple | frozenset) for key in keys):
        raise TypeError(keys)
    return keys


def _extend(machine: Machine, items: _Values) -> None:
    machine.top(list).extend(items)


def _update(machine: Machine, items: _Values) -> None:
    machine.top(dict).update(zip(_plain(items[::2]), items[1::2], strict=True))


def _add(machine: Machine, items: _Values) -> None:
    machine.top(set).update(_plain(items))


def _put(key: Callable[[Machine], int]) -> _Action:
    return lambda machine: machine.memo.__setitem__(key(machine), machine.stack[-1])


def _get(length: struct.Struct) -> _Action:
    return lambda machine: machine.stack.append(machine.memo[machine.number(length)])


def _push(make: Callable[[Machine], Any]) -> _Action:
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
    pickle.FROZENSET: _push(lambda machine: frozenset(_plain(machine.since_mark()))),
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
_ACTIONS: Final = [
    _names_code if bytes([code]) in _CODES else _KNOWN.get(bytes([code]), _unknown) for code in range(256)
]
