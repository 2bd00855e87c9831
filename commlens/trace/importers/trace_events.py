"""The events of a Chrome trace file, a few at a time: the file is never whole in memory."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from typing import Final

import msgspec

from commlens.errors import TraceError
from commlens.trace.importers.content import Content
from commlens.trace.importers.event_pieces import NOT_JSON, Event, last_event, readable, repaired, salvaged

PIECE: Final = 1 << 18  # bytes decoded at once: they stay in the processor's cache
_DAMAGED: Final = 1 << 20  # bytes in which no event ends, or one is damaged
_LONGEST: Final = 16 << 20  # bytes of one event, or of what is said before or after the events: beyond any real ones
_WINDOW: Final = 1 << 16
_TRIES: Final = 8  # places that may be the beginning of the events

_START: Final = re.compile(rb'"traceEvents"\s*:\s*\[')
_object: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])


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
        self._closing = b""
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
        head, tries = b"", _TRIES
        for chunk in chunks:
            searched = max(0, len(head) - _WINDOW)
            head = self._bounded(head + chunk)
            if head.lstrip()[:1] == b"[":  # the bare array is a trace as well
                self._closing = b"}"
                return head.lstrip()[1:]
            for found in islice(_START.finditer(head, searched), tries):
                tries -= 1
                if self._learn(head[: found.end()] + b"]}"):
                    return head[found.end() :]
        raise TraceError(f"{self._content.path} holds no traceEvents: it is no trace of torch.profiler; leave it out")

    def _learn(self, text: bytes) -> bool:
        """Takes the keys of a JSON object, if it is one."""
        for candidate in (text, repaired(text)):
            try:
                found = _object.decode(candidate)
            except NOT_JSON:
                continue
            self.about |= {key: msgspec.Raw(bytes(value)) for key, value in found.items() if key != "traceEvents"}
            return True
        return False

    def _piece(self, data: bytes) -> tuple[list[Event], bytes]:
        """As many whole events as can be had, and the bytes after them."""
        if found := readable(data):
            self._after = found.after
            return found.events, found.rest
        return ([], data) if len(data) < _DAMAGED else self._salvaged(data)

    def _salvaged(self, data: bytes) -> tuple[list[Event], bytes]:
        found, damaged = salvaged(repaired(data))
        self.damaged += damaged
        return found.events, found.rest

    def _ending(self, rest: bytes) -> list[Event]:
        """The last events, and what is said after them."""
        events, rest = self._pieces(rest)
        if self._after is None:
            some, rest = self._salvaged(rest)
            more, rest = self._pieces(rest)
            events += some + more
        if self._after is None:
            self.whole = False
            return events + last_event(rest)
        self.whole = self._learn(b"{" + self._after.lstrip(b", \n\r\t") + self._closing)
        return events

    def _pieces(self, rest: bytes) -> tuple[list[Event], bytes]:
        """All events that come before damage or the end."""
        events: list[Event] = []
        while self._after is None and (found := readable(rest)):
            self._after, rest = found.after, found.rest
            events += found.events
        return events, rest
