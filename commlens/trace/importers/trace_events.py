"""The events of a Chrome trace file, a few at a time: the file is never whole in memory.

The array `traceEvents` is cut where one element ends and the next begins. Such a place cannot be told from
its bytes alone (a string may hold the same ones), but a piece that is cut anywhere else is no valid JSON:
so a piece that can be decoded was cut rightly.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from commlens.errors import TraceError
from commlens.trace.importers.content import Content

PIECE: Final = 1 << 18  # bytes decoded at once: they stay in the processor's cache
_LONGEST: Final = 32 << 20  # bytes of one event, or of what is said before or after the events: beyond any real ones
_WINDOW: Final = 1 << 16
_TRIES: Final = 8

_NO_ARGS: Final = msgspec.Raw(b"{}")
_START: Final = re.compile(rb'"traceEvents"\s*:\s*\[')
_BETWEEN: Final = re.compile(rb"\}\s*,\s*(?=\{)")
_END: Final = re.compile(rb"\}\s*\]\s*,?")
_STRING_OR_NO_NUMBER: Final = re.compile(rb'("[^"\\]*(?:\\.[^"\\]*)*")|-?\b(?:NaN|Infinity|nan|inf)\b')


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
_object: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_BAD: Final = (msgspec.DecodeError, RecursionError, UnicodeError)


class TraceEvents:
    """Reads a trace once, from its beginning.

    Attributes:
        about: everything of the file but the events, as raw JSON by key; complete when all events were read.
        whole: False where the file ends within an event, or not as it should.
        damaged: events that could not be read.
    """

    def __init__(self, content: Content) -> None:
        self.about: dict[str, msgspec.Raw] = {}
        self.whole = True
        self.damaged = 0
        self._content = content
        self._after: bytes | None = None  # what follows the events, once they are over

    def __iter__(self) -> Iterator[list[Event]]:
        """The events, in lists.

        Raises:
            TraceError: It is no trace, or one event is longer than any can be.
        """
        chunks = self._content.chunks(PIECE)
        rest = self._head(chunks)
        wanted = PIECE
        for chunk in chunks:
            if self._after is not None:
                self._after = self._bounded(self._after + chunk)
                continue
            rest = self._bounded(rest + chunk)
            if len(rest) >= wanted:
                events, rest = self._piece(rest)
                wanted = max(PIECE, 2 * len(rest))  # an event that did not end by here is a long one
                yield events
        yield self._ending(rest)
        self.whole = self.whole and self._content.whole

    def _bounded(self, data: bytes) -> bytes:
        if len(data) > _LONGEST:
            where = f"{self._content.path} holds something of over {_LONGEST >> 20} MiB that is no event"
            raise TraceError(f"{where}; it is damaged or no trace: leave it out")
        return data

    def _head(self, chunks: Iterator[bytes]) -> bytes:
        """Reads up to the first event; what is left of the last chunk."""
        head = b""
        for chunk in chunks:
            searched = max(0, len(head) - _WINDOW)
            head = self._bounded(head + chunk)
            if head.lstrip()[:1] == b"[":  # the bare array is a trace as well
                return head.lstrip()[1:]
            for found in _START.finditer(head, searched):
                if self._learn(head[: found.end()] + b"]}"):
                    return head[found.end() :]
        raise TraceError(f"{self._content.path} holds no traceEvents: it is no trace of torch.profiler; leave it out")

    def _learn(self, text: bytes) -> bool:
        """Takes the keys of a JSON object, if it is one."""
        for candidate in (text, _repaired(text)):
            try:
                found = _object.decode(candidate)
            except _BAD:
                continue
            self.about |= {key: msgspec.Raw(bytes(value)) for key, value in found.items() if key != "traceEvents"}
            return True
        return False

    def _piece(self, data: bytes) -> tuple[list[Event], bytes]:
        """As many whole events as can be had, and the bytes after them."""
        found = self._cut(data) or self._cut(_repaired(data))
        if found is not None:
            return found
        return ([], data) if len(data) < 4 * PIECE else self._one_by_one(_repaired(data))

    def _cut(self, data: bytes) -> tuple[list[Event], bytes] | None:
        for cut in _last(_BETWEEN, data):
            if (events := _decoded(data[: cut.start() + 1])) is not None:
                return events, data[cut.end() :]
        return self._over(data)

    def _over(self, data: bytes) -> tuple[list[Event], bytes] | None:
        """The last events, where the array ends within `data`."""
        if data.lstrip()[:1] == b"]":
            self._after = b"{" + data.lstrip()[1:].lstrip(b", \n\r\t")
            return [], b""
        for end in _last(_END, data):
            if (events := _decoded(data[: end.start() + 1])) is not None:
                self._after = b"{" + data[end.end() :]
                return events, b""
        return None

    def _one_by_one(self, data: bytes) -> tuple[list[Event], bytes]:
        """The readable events of a damaged stretch, and what may be the beginning of one more."""
        events: list[Event] = []
        start = 0
        for cut in _BETWEEN.finditer(data):
            found = _decoded(data[start : cut.start() + 1])
            if found is None and cut.start() - start < _WINDOW:
                continue  # a place within an event
            self.damaged += found is None
            events += found or []
            start = cut.end()
        return events, data[start:]

    def _ending(self, rest: bytes) -> list[Event]:
        """The last events, and what is said after them."""
        events: list[Event] = []
        if self._after is None:
            found = self._over(rest) or self._over(_repaired(rest))
            events, rest = found or self._one_by_one(_repaired(rest))
            if found is None:
                events += _decoded(rest[: rest.rfind(b"}") + 1]) or []
                self.whole = False
        after = self._after or b""
        if after.strip() not in (b"", b"{") and not self._learn(after):
            self.whole = False
        return events


def _decoded(elements: bytes) -> list[Event] | None:
    """The events of a stretch of an array, None where it is not whole."""
    try:
        return _events.decode(b"[%b]" % elements)
    except _BAD:
        return None


def _last(pattern: re.Pattern[bytes], data: bytes) -> list[re.Match[bytes]]:
    """The last places of a pattern, the very last first."""
    for window in (_WINDOW, len(data)):
        found = list(pattern.finditer(data, max(0, len(data) - window)))
        if found:
            break
    return found[: -_TRIES - 1 : -1]


def _repaired(data: bytes) -> bytes:
    """JSON as some writers have it (bytes that are not UTF-8, NaN and infinities) made valid."""
    text = data.decode("utf-8", "replace").encode()
    return _STRING_OR_NO_NUMBER.sub(lambda found: found[1] or b"null", text)
