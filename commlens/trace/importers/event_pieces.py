"""Whole events out of a piece of JSON that begins with one and ends anywhere.

Where one element of an array ends cannot be told from its bytes alone (a string may hold the same ones), but a piece
that is cut anywhere else is no valid JSON: so what can be decoded was cut rightly. That is tried at a few places;
where none of them is right brackets are counted.
"""

from __future__ import annotations

import codecs
import re
from typing import Any, Final, NamedTuple

import msgspec

_NO_ARGS: Final = msgspec.Raw(b"{}")
_WINDOW: Final = 1 << 16
_TRIES: Final = 8
_DEEPEST: Final = 1000  # brackets within brackets: what nests deeper cannot be decoded
_BETWEEN: Final = re.compile(rb"\}\s*,\s*(?=\{)")
_EVENT: Final = re.compile(rb'\{\s*"(?:ph|name|cat|pid|ts|args)"')  # how they begin
_END: Final = re.compile(rb"\}\s*(?:,\s*)?\]")
# An open string reaches to the end of the data: without that each of its quotes would be tried as a beginning.
_STRING: Final = rb'"[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z)'
_BRACKET: Final = re.compile(rb'(?:%b[^][{}"]*){1,64}|[][{}]' % _STRING, re.DOTALL)  # or strings, many at once
_NO_NUMBER: Final = re.compile(rb"-?\b(?:NaN|Infinity|nan|inf)\b")
_STRING_OR_NO_NUMBER: Final = re.compile(rb"(%b)|%b" % (_STRING, _NO_NUMBER.pattern), re.DOTALL)


class Event(msgspec.Struct, gc=False):
    """One event; times in microseconds."""

    ph: str = ""
    cat: str = ""
    name: str = ""
    tid: Any = 0
    ts: float = 0.0
    dur: float = 0.0
    args: msgspec.Raw = _NO_ARGS


_events: Final = msgspec.json.Decoder(list[Event], strict=False)
NOT_JSON: Final = (msgspec.DecodeError, RecursionError, UnicodeError)


class Piece(NamedTuple):
    """What was made of a piece.

    Attributes:
        events: whole ones.
        rest: what follows them, the beginning of the next event.
        after: what follows the array, None where it does not end here.
    """

    events: list[Event]
    rest: bytes
    after: bytes | None = None


def readable(data: bytes) -> Piece | None:
    """As many whole events as can be had, None where the first is not whole or there is damage."""
    if data.lstrip()[:1] == b"]":
        return Piece([], b"", data.lstrip()[1:])
    if found := _tried(data):
        return found
    data = repaired(data)
    return _tried(data) or _counted(data)


def salvaged(data: bytes) -> tuple[Piece, int]:
    """The readable events of a damaged stretch, and the number of the others; it ends before the last of the array."""
    events: list[Event] = []
    damaged = start = 0
    brackets = _Brackets(data, 0)
    for cut in _BETWEEN.finditer(data):
        end = cut.start() + 1
        brackets.advance(end)
        if brackets.depth < 0 and _holds_end(data[start:end]):
            break
        lost = brackets.depth < 0 or end - start > _WINDOW or _EVENT.match(data, cut.end())
        if lost or brackets.closed:
            found = _decoded(data[start:end])
            damaged += found is None
            events += found or []
            start = cut.end()
            brackets = _Brackets(data, start)
    return Piece(events, data[start:]), damaged


def last_event(data: bytes) -> list[Event]:
    """The last event of a file that ends before its array does, if it is whole."""
    return _decoded(data[: data.rfind(b"}") + 1]) or []


def repaired(data: bytes) -> bytes:
    """JSON as some writers have it (bytes that are not UTF-8, NaN and infinities) made valid."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    text = decoder.decode(data).encode() + decoder.getstate()[0]  # a letter that is cut at the end stays as it is
    if not _NO_NUMBER.search(text):  # to go through all strings takes far longer
        return text
    return _STRING_OR_NO_NUMBER.sub(lambda found: found[1] or b"null", text)


def _tried(data: bytes) -> Piece | None:
    """Cut at one of the last places that look right."""
    for cut in _last(_BETWEEN, data):
        if (events := _decoded(data[: cut.start() + 1])) is not None:
            return Piece(events, data[cut.end() :])
    for end in _last(_END, data):
        if (events := _decoded(data[: end.start() + 1])) is not None:
            return Piece(events, b"", data[end.end() :])
    return None


def _counted(data: bytes) -> Piece | None:
    """Cut where counting brackets says so."""
    end, following, over = _count(data)
    events = _decoded(data[:end]) if end else None
    if events is None:
        return None
    return Piece(events, b"", data[following:]) if over else Piece(events, data[following:])


def _count(data: bytes) -> tuple[int, int, bool]:
    """Where the last event ends that something follows, where that begins, and whether it comes after the array."""
    depth = end = cut = following = 0
    for found in _BRACKET.finditer(data):
        mark = data[found.start()]
        if mark in b"{[":
            if depth == 0:
                cut, following = end, found.start()
            depth += 1
            if depth > _DEEPEST:
                break
        elif mark in b"]}":
            depth -= 1
            if depth == 0:
                end = found.end()
            elif depth < 0:
                return (end, found.end(), True) if mark in b"]" else (0, 0, False)
    return cut, following, False


class _Brackets:
    """Counts brackets from `start` on, strings aside.

    Attributes:
        depth: how many are open.
        closed: none is open, and no string.
    """

    def __init__(self, data: bytes, start: int) -> None:
        self.depth = 0
        self.closed = True
        self._found = _BRACKET.finditer(data, start)
        self._next = next(self._found, None)

    def advance(self, end: int) -> None:
        """Counts those before `end`; not beyond the first that was never opened."""
        while self._next and self._next.start() < end and self.depth >= 0:
            self.depth += {b"{": 1, b"[": 1, b"}": -1, b"]": -1}.get(self._next[0], 0)
            self.closed = self.depth == 0 and self._next.end() <= end
            self._next = next(self._found, None)


def _holds_end(data: bytes) -> bool:
    """Whether the array ends in `data`, after one more event."""
    end, _, over = _count(data)
    return over and _decoded(data[:end]) is not None


def _decoded(elements: bytes) -> list[Event] | None:
    """The events of a stretch of an array, None where it is not whole."""
    try:
        return _events.decode(b"[%b]" % elements)
    except NOT_JSON:
        return None


def _last(pattern: re.Pattern[bytes], data: bytes) -> list[re.Match[bytes]]:
    """The last places of a pattern, the very last first."""
    for window in (_WINDOW, len(data)):
        found = list(pattern.finditer(data, max(0, len(data) - window)))
        if found:
            break
    return found[: -_TRIES - 1 : -1]
