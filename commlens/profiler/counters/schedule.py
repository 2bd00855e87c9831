"""When each source is read, and how a source that costs too much comes to be read less often."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from commlens.profiler.clock import cpu_now, now
from commlens.profiler.counters.source import Source

SHARE: Final = 0.001  # of a core that one source may take at 100 ms; who asks for shorter intervals accepts more
_AT_MS: Final = 100
_MEASURED: Final = 8  # every so many readings one is measured, for reading the clock of CPU time costs as well
_JUDGED_OVER: Final = 4  # measured readings
_SLOWEST_MS: Final = 30_000

Raw = tuple[Source, int, Any]


class _Turn:
    """One source's turn: every how many samples, and what its readings cost."""

    __slots__ = ("costs", "every", "readings", "source")

    def __init__(self, source: Source, every: int) -> None:
        self.source = source
        self.every = every
        self.readings = 0
        self.costs: list[int] = []


class Schedule:
    """Reads each source in its turn.

    Args:
        interval_ms: the time between two samples.
        sources: in the order in which they are read.
        clock, cpu_clock: in ns.
    """

    def __init__(
        self,
        interval_ms: int,
        sources: Sequence[Source],
        clock: Callable[[], int] = now,
        cpu_clock: Callable[[], int] = cpu_now,
    ) -> None:
        self.interval_ms = interval_ms
        self.samples = 0
        self.slowed: list[dict[str, Any]] = []
        self._turns: list[_Turn] = []
        self.add(sources)
        self._share = SHARE * max(1.0, _AT_MS / interval_ms)
        self._clock, self._cpu_clock = clock, cpu_clock

    def add(self, sources: Sequence[Source]) -> None:
        """Reads further sources, from the next sample on."""
        self._turns += [_Turn(source, max(1, -(-source.every_ms // self.interval_ms))) for source in sources]

    def sample(self, keep: Callable[[Raw], None], everything: bool = False) -> None:
        """Reads the sources whose turn it is, or all, and hands on what they say and when: halfway through reading."""
        clock, number = self._clock, self.samples
        self.samples = number + 1
        for turn in self._turns:
            if everything or number % turn.every == 0:
                turn.readings += 1
                measured = turn.readings % _MEASURED == 0
                cpu_from = self._cpu_clock() if measured else 0
                at_from = clock()
                raw = turn.source.read()
                if raw is not None:
                    keep((turn.source, (at_from + clock()) // 2, raw))
                if measured:
                    self._judge(turn, self._cpu_clock() - cpu_from)

    def _judge(self, turn: _Turn, cost_ns: int) -> None:
        """Halves how often a source is read whose median cost is above its share."""
        turn.costs.append(cost_ns)
        if len(turn.costs) < _JUDGED_OVER:
            return
        cost_ns, turn.costs = sorted(turn.costs)[_JUDGED_OVER // 2 - 1], []
        every_ms = turn.every * self.interval_ms
        if cost_ns > self._share * every_ms * 1e6 and every_ms * 2 <= _SLOWEST_MS:
            turn.every *= 2
            said = {"source": turn.source.name, "every_ms": every_ms * 2, "because_us": round(cost_ns / 1e3, 1)}
            self.slowed.append(said)

    def described(self) -> list[dict[str, Any]]:
        """How often each source is read."""
        return [{"source": turn.source.name, "every_ms": turn.every * self.interval_ms} for turn in self._turns]
