"""Deep windows and pauses of a recording: which steps they leave to be analysed, and what is to be said of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from commlens.trace.sampling import Choice, chosen, parse_choice
from commlens.trace.windows import WRITTEN, entries

Span = tuple[int, int]  # steps from the first up to, not including, the second
NEVER: Final = 2**62


@dataclass(frozen=True)
class Window:
    """One deep window of one rank.

    Attributes:
        first: its first step.
        end: the step after its last one.
        state: done, cut, discarded, skipped, or how far it is.
        why: why it is not done, None where it is.
        clear: the first step that it did not disturb; beyond all steps while that is not known.
        start_ns: when it began, ns of the rank's clock; None where it did not.
        end_ns: when it ended, likewise.
        held_ns: how long the job stood still for it.
    """

    first: int
    end: int
    state: str
    why: str | None
    clear: int
    start_ns: int | None
    end_ns: int | None
    held_ns: int


def read_windows(info: Mapping[str, Any]) -> tuple[Window, ...]:
    """The windows that a rank.json tells of."""
    return tuple(_window(each) for each in entries(info, "windows"))


def _window(found: Mapping[str, Any]) -> Window:
    first = _int(found.get("first_step"), 0)
    skipped = found.get("state") == "skipped"
    start_ns, end_ns = found.get("start_ns"), found.get("end_ns")
    return Window(
        first=first,
        end=first + _int(found.get("steps"), 0),
        state=str(found.get("state")),
        why=found.get("why") if isinstance(found.get("why"), str) else None,
        clear=first if skipped else _int(found.get("clear_step"), NEVER),
        start_ns=start_ns if isinstance(start_ns, int) else None,
        end_ns=end_ns if isinstance(end_ns, int) else None,
        held_ns=_int(found.get("stop_ns"), 0) + _int(found.get("export_ns"), 0),
    )


def _int(value: object, otherwise: int) -> int:
    return value if type(value) is int else otherwise


@dataclass(frozen=True)
class Sampled:
    """The steps that a rank recorded where COMMLENS_STEPS left out some on purpose.

    Attributes:
        said: what COMMLENS_STEPS said.
        choice: the same, read.
        windows: steps of deep windows, which are recorded beside them.
    """

    said: str
    choice: Choice
    windows: tuple[Span, ...] = ()

    def kept(self, steps: NDArray[np.integer[Any]]) -> NDArray[np.bool_]:
        """Which steps were recorded, of their shape."""
        return chosen(self.choice, steps) | within(self.windows, steps)


def within(spans: Iterable[Span], steps: NDArray[np.integer[Any]]) -> NDArray[np.bool_]:
    """Which steps lie in some span, of their shape."""
    inside = np.zeros(steps.shape, bool)
    for first, end in spans:
        inside |= (steps >= first) & (steps < end)
    return inside


@dataclass(frozen=True)
class Unfit:
    """Steps that are not analysed.

    Attributes:
        disturbed: by deep windows, on any rank, for the others waited for it; analysed where there are no others.
        absent: their collectives were not recorded on some rank; never analysed.
        sampled: what ranks recorded that left out steps on purpose; the others are never analysed.
    """

    disturbed: tuple[Span, ...] = ()
    absent: tuple[Span, ...] = ()
    sampled: tuple[Sampled, ...] = ()

    def is_absent(self, steps: NDArray[np.integer[Any]]) -> NDArray[np.bool_]:
        """Which steps some rank did not record, of their shape."""
        missing = within(self.absent, steps)
        for each in self.sampled:
            missing |= ~each.kept(steps)
        return missing


def unfit_steps(infos: Iterable[Mapping[str, Any]]) -> Unfit:
    """The steps of a run that are not analysed as light ones, from its rank.json files."""
    disturbed: set[Span] = set()
    absent: set[Span] = set()
    sampled: dict[Sampled, None] = {}
    for info in infos:
        # In the step before it a window connects to the devices' tracing.
        disturbed |= {(each.first - 1, each.clear) for each in read_windows(info) if each.clear > each.first}
        absent |= {*paused_spans(info), *summed_spans(info)}
        if (found := read_sampled(info)) is not None:
            sampled[found] = None
    return Unfit(tuple(sorted(disturbed)), tuple(sorted(absent)), tuple(sampled))


def read_sampled(info: Mapping[str, Any]) -> Sampled | None:
    """What a rank recorded where COMMLENS_STEPS chose steps; None where it did not."""
    said = info.get("sampled_steps")
    if not isinstance(said, str):
        return None
    try:
        choice = parse_choice(said)
    except ValueError:
        return None
    # A window is prepared in the step before it; one that was skipped may have been too late to be recorded.
    spans = [(each.first - 1, each.end) for each in read_windows(info) if each.state != "skipped"]
    return Sampled(said, choice, tuple(spans))


def paused_spans(info: Mapping[str, Any]) -> list[Span]:
    """Steps whose collectives a rank did not record."""
    return [(each["from_step"], _int(each.get("to_step"), NEVER)) for each in entries(info, "paused") if _starts(each)]


def summed_spans(info: Mapping[str, Any]) -> list[Span]:
    """Steps of which a rank kept only sums."""
    told = info.get("aggregates")
    first = told.get("from_step") if isinstance(told, dict) else None
    return [(first, NEVER)] if type(first) is int else []


def _starts(span: Mapping[str, Any]) -> bool:
    return type(span.get("from_step")) is int


def recorded_windows(info: Mapping[str, Any], read: Collection[int]) -> tuple[Window, ...]:
    """Windows of a rank whose traces could be read, by their first steps."""
    return tuple(each for each in read_windows(info) if each.state in WRITTEN and each.first in read)


@dataclass(frozen=True)
class WindowLine:
    """A deep window over all ranks.

    Attributes:
        first_step: its first step.
        steps: how many it was to have.
        recorded_ranks: ranks that have it, whole or in part.
        not_recorded: what became of it on the others, rank by reason.
        held_ms: the most that a rank stood still for it.
    """

    first_step: int
    steps: int
    recorded_ranks: tuple[int, ...]
    not_recorded: dict[str, tuple[int, ...]]
    held_ms: float


def window_lines(infos: Mapping[int, Mapping[str, Any]]) -> tuple[WindowLine, ...]:
    """A line for every deep window that any rank tells of, by step."""
    by_step: defaultdict[int, list[tuple[int, Window]]] = defaultdict(list)
    for rank, info in sorted(infos.items()):
        for window in read_windows(info):
            by_step[window.first].append((rank, window))
    return tuple(_line(first, found) for first, found in sorted(by_step.items()))


def _outcome(window: Window) -> str:
    if window.state not in ("discarded", "skipped"):
        return "not finished"
    return f"{window.state}: {window.why}" if window.why else window.state


def _line(first: int, found: Sequence[tuple[int, Window]]) -> WindowLine:
    reasons: defaultdict[str, list[int]] = defaultdict(list)
    for rank, window in found:
        if window.state not in WRITTEN:
            reasons[_outcome(window)].append(rank)
    return WindowLine(
        first_step=first,
        steps=max(window.end for _, window in found) - first,
        recorded_ranks=tuple(rank for rank, window in found if window.state in WRITTEN),
        not_recorded={reason: tuple(ranks) for reason, ranks in reasons.items()},
        held_ms=max(window.held_ns for _, window in found) / 1e6,
    )
