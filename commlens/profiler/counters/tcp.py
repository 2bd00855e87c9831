"""TCP segments sent and sent again, of the whole network namespace.

/proc/net/netstat says more of why, in three times the time and in no word of ours; what was sent again is here.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from commlens.profiler.counters.files import CounterFile, why
from commlens.profiler.counters.source import ALL, Pair, Source, key, link

SNMP: Final = Path("/proc/net/snmp")
DEVICE: Final = "tcp"
_WORDS: Final = {b"OutSegs": key(DEVICE, "tx_segments"), b"RetransSegs": key(DEVICE, "retransmits")}


class Tcp(Source):
    """Segments of every TCP connection of the namespace, the loopback's too."""

    name = "tcp"
    every_ms = 2000

    def __init__(self, path: Path = SNMP) -> None:
        super().__init__()
        self._file = CounterFile(path)

    def refresh(self) -> None:
        if not self.links and self.read() is not None:
            self.links.append(link(DEVICE, "tcp", "no bytes", "when read", None, "no link by itself"))

    def read(self) -> bytes | None:
        """The two lines of TCP: names and numbers."""
        try:
            return b"\n".join(line for line in self._file.read().splitlines() if line.startswith(b"Tcp:")) or None
        except OSError as error:
            self.refuse(DEVICE, ALL, f"{self._file.path}: {why(error)}")
            return None

    def decode(self, raw: bytes) -> Iterable[Pair]:
        names, _, numbers = raw.partition(b"\n")
        told = dict(zip(names.split(), numbers.split(), strict=False))
        for word, each in _WORDS.items():
            if word in told:
                yield each, int(told[word])
            else:
                self.refuse(*each, f"{self._file.path} does not tell {word.decode()}")

    def close(self) -> None:
        self._file.close()
