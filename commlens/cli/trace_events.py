"""Columns as events of the Trace Event format (JSON), a whole block at once.

The format: "Trace Event Format" (Chromium). Times are microseconds with three decimals, so a nanosecond is kept.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from commlens.trace.schema import MISSING

Numbers = NDArray[np.integer[Any]]
Text: TypeAlias = str | Any  # the same in every event, or an Arrow array of one text a row

_LONGEST: Final = 200  # characters of a name


def shortened(word: str) -> str:
    """A word short enough to be shown."""
    return word if len(word) <= _LONGEST else word[: _LONGEST - 1] + "…"


def name_of(word: str) -> str:
    """A word as a JSON string, short enough to be shown."""
    return json.dumps(shortened(word))


def whole(values: Numbers) -> pa.Array:
    """Integers."""
    return pa.array(values).cast(pa.string())


def decimal(values: Numbers, digits: int) -> pa.Array:
    """Integers divided by 10 to the power of `digits`, exactly; none may be negative."""
    pairs = np.zeros((values.size, 2), np.int64)  # a decimal is an integer of 128 bits
    pairs[:, 0] = values
    kind = pa.decimal128(38, digits)
    return pa.Array.from_buffers(kind, values.size, [None, pa.py_buffer(pairs)]).cast(pa.string())


def shortest(values: NDArray[np.floating[Any]]) -> Any:
    """Numbers with a fraction, as short as they can be read back."""
    return pa.array(values).cast(pa.string())


def picked(words: Sequence[str], codes: Numbers) -> pa.Array:
    """The word of each row as it is, `null` where it has none."""
    return pa.array([*words, "null"], pa.string()).take(pa.array(np.where(codes == MISSING, len(words), codes)))


def argument(name: str, text: Text, known: NDArray[np.bool_] | None = None) -> Text:
    """`"name":text,`, and nothing where it is not known."""
    head = f"{json.dumps(name)}:"
    if isinstance(text, str):
        shown = f"{head}{text},"
        return shown if known is None else pc.if_else(pa.array(known), shown, "")
    joined = _text(head, text, ",")
    return joined if known is None or known.all() else pc.if_else(pa.array(known), joined, "")


def known_number(name: str, values: Numbers) -> Text:
    """An argument that is left out where it is MISSING."""
    return argument(name, whole(values), values != MISSING)


def known_ms(name: str, values: Numbers) -> Text:
    """An argument in ms, left out where the nanoseconds are MISSING."""
    return argument(name, decimal(np.maximum(values, 0), 6), values != MISSING)


def arguments(*each: Text, last: tuple[str, Text]) -> tuple[Text, ...]:
    """The field that holds arguments; the last one, a name and its text, is always there."""
    return '"args":{', *each, f"{json.dumps(last[0])}:", last[1], "},"


def bound(numbers: Numbers, how: str, known: NDArray[np.bool_]) -> Text:
    """The end of an arrow that is bound to a slice: `flow_out` or `flow_in`; nothing where there is none."""
    return pc.if_else(pa.array(known), _text('"bind_id":', whole(numbers), f',"{how}":true,'), "")


def chosen(text: Text, rows: NDArray[np.bool_]) -> Text:
    """The texts of some rows."""
    return text if isinstance(text, str) else text.filter(pa.array(rows))


def slices(pid: int, tid: Text, start: Numbers, length: Numbers, name: Text, *more: Text) -> bytes:
    """Complete events; `more` are further fields, each ending in a comma."""
    head = f'{{"ph":"X","pid":{pid},"tid":'
    times = (',"ts":', decimal(start, 3), ',"dur":', decimal(length, 3))
    return _joined(head, tid, *times, ",", *more, '"name":', name, "},\n", rows=start.size)


def instants(pid: int, tid: Text, time: Numbers, name: Text, *more: Text) -> bytes:
    """Events without a length, drawn on their thread."""
    head = f'{{"ph":"i","s":"t","pid":{pid},"tid":'
    return _joined(head, tid, ',"ts":', decimal(time, 3), ",", *more, '"name":', name, "},\n", rows=time.size)


def counts(pid: int, time: Numbers, name: str, unit: str, value: Text) -> bytes:
    """A counter's values from each time on."""
    head = f'{{"ph":"C","pid":{pid},"name":{name},"ts":'
    return _joined(head, decimal(time, 3), f',"args":{{{json.dumps(unit)}:', value, "}},\n", rows=time.size)


def _joined(*parts: Text, rows: int) -> bytes:
    """All rows one after another; constants are repeated in each."""
    if not rows:
        return b""
    text = _text(*parts)
    offsets = np.frombuffer(text.buffers()[1], np.int32)[text.offset : text.offset + rows + 1]
    return memoryview(text.buffers()[2])[offsets[0] : offsets[-1]].tobytes()


def _text(*parts: Text) -> Any:
    """One text a row, of constants and of texts a row."""
    merged: list[Text] = []
    for part in parts:
        if isinstance(part, str) and merged and isinstance(merged[-1], str):
            merged[-1] += part
        else:
            merged.append(part)
    return pc.binary_join_element_wise(*merged, "")


def described(what: str, pid: int, value: Mapping[str, Any], tid: int = 0) -> bytes:
    """A metadata event: a name, or a place in the order."""
    event = {"ph": "M", "name": what, "pid": pid, "tid": tid, "args": value}
    return json.dumps(event).encode() + b",\n"
