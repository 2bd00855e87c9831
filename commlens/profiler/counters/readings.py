"""Which readings are kept: of equal values in a row the first and the last, so that lines between rows are exact."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from commlens.profiler.counters.source import Key, Source

_INT64_MAX: Final = 2**63 - 1
KEEP_ALIVE_NS: Final = 60_000_000_000  # a value that stays is written this often, for a job that is killed later


class Rows(NamedTuple):
    """Rows of the table: times in ns of `clock.now`, places in `Readings.keys`, values."""

    times: list[int]
    codes: list[int]
    values: list[int]


class _Series:
    __slots__ = ("code", "seen_ns", "value", "written_ns")

    def __init__(self, code: int, at_ns: int, value: int) -> None:
        self.code = code
        self.value = value
        self.seen_ns = self.written_ns = at_ns


class Readings:
    """Turns raw readings into rows. One thread at a time may use it."""

    def __init__(self) -> None:
        self.keys: list[Key] = []
        self._rows = Rows([], [], [])
        self._series: dict[Key, _Series] = {}
        self._raw: dict[Source, Any] = {}
        self._same: dict[Source, int] = {}  # when a source's raw reading was last what it had been
        self._of: dict[Source, list[Key]] = {}  # what its last raw reading held
        self._alive_ns = 0

    def take(self, source: Source, at_ns: int, raw: Any) -> None:
        """Decodes one raw reading. A source's readings come in the order of their times."""
        if source in self._raw and raw == self._raw[source]:
            self._same[source] = at_ns
            return
        self._settle(source)
        self._raw[source] = raw
        held = self._of[source] = []
        for key, value in source.decode(raw):
            if 0 <= value <= _INT64_MAX:
                held.append(key)
                self._add(key, at_ns, value)

    def latest(self) -> dict[Key, int]:
        """The newest value of each counter."""
        return {key: series.value for key, series in self._series.items()}

    def end(self) -> None:
        """Writes the last reading of what had stayed as it was."""
        for source in list(self._of):
            self._settle(source)
        for series in self._series.values():
            self._write_last(series)

    def keep_alive(self, at_ns: int) -> None:
        """Now and then writes values that stay as they are too."""
        if at_ns - self._alive_ns > KEEP_ALIVE_NS:
            self._alive_ns = at_ns
            self.end()

    def drain(self) -> Rows:
        """The rows since the last drain."""
        rows, self._rows = self._rows, Rows([], [], [])
        return rows

    def _settle(self, source: Source) -> None:
        same_ns = self._same.pop(source, None)
        if same_ns is not None:
            for key in self._of[source]:
                self._series[key].seen_ns = same_ns

    def _add(self, key: Key, at_ns: int, value: int) -> None:
        series = self._series.get(key)
        if series is None:
            series = self._series[key] = _Series(len(self.keys), at_ns, value)
            self.keys.append(key)
            self._write(series, at_ns)
        elif value == series.value:
            series.seen_ns = at_ns
        else:
            self._write_last(series)
            series.value = value
            self._write(series, at_ns)

    def _write_last(self, series: _Series) -> None:
        if series.seen_ns > series.written_ns:
            self._write(series, series.seen_ns)

    def _write(self, series: _Series, at_ns: int) -> None:
        series.seen_ns = series.written_ns = at_ns
        self._rows.times.append(at_ns)
        self._rows.codes.append(series.code)
        self._rows.values.append(series.value)


def devices_and_words(keys: Iterable[Key]) -> tuple[list[str], list[str], list[tuple[int, int]]]:
    """Vocabularies of devices and of counters, and of each key its two places in them.

    Both vocabularies only grow at their ends as `keys` does.
    """
    devices: dict[str, int] = {}
    words: dict[str, int] = {}
    places = [(devices.setdefault(device, len(devices)), words.setdefault(word, len(words))) for device, word in keys]
    return list(devices), list(words), places
