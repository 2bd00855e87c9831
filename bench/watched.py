"""Runs a command and watches the memory of it and of every process that it starts."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

_EVERY_S: Final = 0.2
_MIB: Final = 1024  # of the kB in /proc


@dataclass
class Peaks:
    """The most that one process held, MiB.

    Attributes:
        rss: all that is resident: its own memory, and the pages of mapped files, which the kernel takes back at need.
        anonymous: its own memory alone.
    """

    rss: float = 0.0
    anonymous: float = 0.0

    def see(self, pid: int) -> None:
        held = _memory(pid)
        self.rss = max(self.rss, held.get("VmRSS", 0) / _MIB)
        self.anonymous = max(self.anonymous, held.get("RssAnon", 0) / _MIB)


@dataclass
class Watched:
    """What a command did.

    Attributes:
        seconds: wall time of the whole process.
        output: its standard output.
        own: memory of the process itself: the client of a cluster.
        started: memory of each process below it, by its number: the workers of a cluster.
    """

    seconds: float = 0.0
    output: bytes = b""
    own: Peaks = field(default_factory=Peaks)
    started: dict[int, Peaks] = field(default_factory=dict)

    @property
    def worker(self) -> Peaks:
        """The most of any process below it; zeros where there was none."""
        peaks = self.started.values()
        return Peaks(max((p.rss for p in peaks), default=0.0), max((p.anonymous for p in peaks), default=0.0))


def watched(command: Sequence[str]) -> Watched:
    """Run a command to its end, looking at its processes five times a second.

    Raises:
        RuntimeError: it failed; its error output is in the message.
    """
    found = Watched()
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    over = threading.Event()
    looking = threading.Thread(target=_look, args=(process.pid, found, over))
    looking.start()
    try:
        found.output, errors = process.communicate()
    finally:
        over.set()
        looking.join()
    found.seconds = time.perf_counter() - began
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}: {errors.decode()[-2000:]}")
    return found


def _look(pid: int, found: Watched, over: threading.Event) -> None:
    while not over.wait(_EVERY_S):
        found.own.see(pid)
        for child in _below(pid):
            found.started.setdefault(child, Peaks()).see(child)


def _below(pid: int) -> list[int]:
    """Processes that it started, and those that they started."""
    found: list[int] = []
    for thread in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = [int(each) for each in thread.read_text().split()]
        except OSError:  # it has ended
            continue
        found += [each for child in children for each in (child, *_below(child))]
    return found


def _memory(pid: int) -> dict[str, int]:
    """Lines of /proc/PID/status in kB; none where the process has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return {}
    parts = (line.split() for line in lines if line.endswith(" kB"))
    return {name.rstrip(":"): int(value) for name, value, _ in parts}
