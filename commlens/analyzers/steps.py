"""What a step is, for one rank: from one end of the primary optimizer's step to the next."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from commlens.analyzers.columns import Columns
from commlens.analyzers.grouped import group_keys
from commlens.analyzers.intervals import Intervals, Ints, merge
from commlens.analyzers.signature import repetition_starts
from commlens.analyzers.windows import Unfit, Window, within
from commlens.trace.schema import MISSING, STEP_MARK

_ALL_FIT = Unfit()
WARM_UP = 2  # a job's first steps allocate, compile and open connections: never analysed

FROM_OPTIMIZER = "from one end of the optimizer's step to the next"
FROM_MARKS = "the profiler's step marks, to the end of the device work launched in them"
IN_WINDOWS = "inside deep windows, to the end of the device work launched in each step"
INFERRED = "inferred from the repeating signature"
NONE = "none"


@dataclass(frozen=True)
class Steps:
    """The analysed steps of one rank.

    Attributes:
        how: how steps were told apart.
        count: whole steps seen, the warm-up among them.
        index: number of each analysed step in the job, shape (steps,); 0 is the job's first.
        start_ns: shape (steps,).
        end_ns: shape (steps,); the next step starts there.
    """

    how: str
    count: int
    index: Ints
    start_ns: Ints
    end_ns: Ints

    @property
    def window(self) -> Intervals:
        """The analysed time, merged."""
        return merge(self.start_ns, self.end_ns)


def find_steps(columns: Columns, windows: Sequence[Window] = (), unfit: Unfit = _ALL_FIT) -> Steps:
    """Steps of a rank: from step marks, else its optimizer, else from the repeating signature, else none.

    The unfinished step at the end of the trace is dropped. Where devices were recorded in deep windows, only the
    steps inside them are analysed; else those that neither a window disturbed nor a pause or sample left out, if any
    remain.

    Args:
        columns: of one rank.
        windows: deep windows that it recorded.
        unfit: steps that are not analysed.
    """
    marked = _marked(columns)
    if marked is not None:
        return marked
    ends, numbers = optimizer_ends(columns)
    if ends.size and windows and columns.kernels["start_ns"].size:
        return _in_windows(columns, ends, numbers, windows)
    if ends.size:
        return _fit(_between(ends, FROM_OPTIMIZER, before=1, numbers=numbers), unfit)
    if 2 * np.count_nonzero(columns.collectives["bytes"] == MISSING) > columns.collectives["bytes"].size:
        # Rows without a size look more alike than they are.
        return _between(ends, NONE, before=0)
    tokens = signature_tokens(columns)
    starts = columns.collectives["issued_ns"][repetition_starts(tokens)]
    return _between(starts, INFERRED if starts.size else NONE, before=0)


def no_steps() -> Steps:
    """Of a rank whose times do not say when things happened."""
    return _between(np.zeros(0, np.int64), NONE, before=0)


def _marked(columns: Columns) -> Steps | None:
    """Steps that the trace itself marks, None where it does not.

    The host runs ahead of the device, so a step ends when all that was launched before its mark's end has
    run. A profiler's window lies in a warm job: only steps numbered as the first two are left out, if
    others remain.
    """
    rows = np.flatnonzero(columns.during(STEP_MARK))
    if not rows.size:
        return None
    rows = rows[np.argsort(columns.phases["start_ns"][rows], kind="stable")]
    names = columns.phase_words["name"]
    marks = np.append(columns.phases["start_ns"][rows], columns.phases["end_ns"][rows[-1:]])
    bounds = np.maximum.accumulate(np.maximum(marks, _device_end(columns, marks)))
    index = _numbers([names.words[code] for code in names.codes[rows]])
    starts, ends = bounds[:-1], bounds[1:]
    keep = ends > starts
    if (keep & (index >= WARM_UP)).any():
        keep &= index >= WARM_UP
    return Steps(FROM_MARKS, rows.size, index[keep], starts[keep], ends[keep])


def _device_end(columns: Columns, times: Ints) -> Ints:
    """End of the last kernel launched before each time, ns; before all times where there is none.

    A kernel without a launch came from before the trace if it ran before all others; else its start must do.
    """
    launched, start = columns.kernels["launched_ns"], columns.kernels["start_ns"]
    seen = launched != MISSING
    first = start[seen].min() if seen.any() else MISSING
    launched = np.where(~seen & (start > first), start, launched)
    order = np.argsort(launched, kind="stable")
    launched = launched[order]
    reach = np.maximum.accumulate(np.append(np.int64(MISSING), columns.kernels["end_ns"][order]))
    return np.asarray(reach[np.searchsorted(launched, times, side="left")])


def _numbers(names: Sequence[str]) -> Ints:
    """The number at the end of each name, or the places where not all have one of their own."""
    found = [re.search(r"(\d{1,15})\D*$", name) for name in names]
    numbers = [int(each[1]) for each in found if each]
    if len(set(numbers)) == len(names):
        return np.array(numbers, np.int64)
    return np.arange(WARM_UP, WARM_UP + len(names), dtype=np.int64)


def signature_tokens(columns: Columns) -> Ints:
    """One small integer per collective: rows with equal (group, op, message bytes) share it."""
    words = columns.words
    return group_keys([words["group"].codes, words["op"].codes, columns.collectives["bytes"]])[0]


def optimizer_ends(columns: Columns) -> tuple[Ints, Ints]:
    """Ends of the optimizer that stepped first, ns, ascending, and the number of the step that each one ends."""
    rows = np.flatnonzero(columns.during("optimizer"))
    ends, names = columns.phases["end_ns"][rows], columns.phase_words["name"].codes[rows]
    if rows.size:
        own = names == names[np.argmin(ends)]
        rows, ends = rows[own], ends[own]
    ends, first = np.unique(ends, return_index=True)
    numbers = columns.phases["step"][rows][first]
    if (numbers == MISSING).any() or (np.diff(numbers) <= 0).any():
        numbers = np.arange(ends.size, dtype=np.int64)
    return ends, numbers


def _in_windows(columns: Columns, ends: Ints, numbers: Ints, windows: Sequence[Window]) -> Steps:
    """Whole steps inside deep windows; they end as marked ones do, when what was launched in them has run."""
    bounds = np.maximum(ends, _device_end(columns, ends))
    inside = np.zeros(numbers.size, bool)
    for window in windows:
        seen = (numbers >= window.first) & (numbers < window.end)
        inside |= seen & (ends <= window.end_ns) if window.end_ns is not None else seen
    inside[0] = False  # where it began is not known
    inside[1:] &= (np.diff(numbers) == 1) & (bounds[1:] > bounds[:-1]) & (numbers[1:] >= WARM_UP)
    last = np.flatnonzero(inside)
    return Steps(IN_WINDOWS, int(ends.size), numbers[last], bounds[last - 1], bounds[last])


def _fit(steps: Steps, unfit: Unfit) -> Steps:
    """Without the steps that are absent, and without disturbed ones where others are left."""
    recorded = _only(steps, ~unfit.is_absent(steps.index))
    quiet = _only(recorded, ~within(unfit.disturbed, recorded.index))
    return quiet if quiet.index.size else recorded


def _only(steps: Steps, keep: NDArray[np.bool_]) -> Steps:
    return replace(steps, index=steps.index[keep], start_ns=steps.start_ns[keep], end_ns=steps.end_ns[keep])


def _between(bounds: Ints, how: str, before: int, numbers: Ints | None = None) -> Steps:
    """Steps between consecutive bounds; `before` whole steps ended at the first bound.

    Args:
        bounds: ns, ascending.
        how: how they were found.
        before: whole steps that ended at the first bound.
        numbers: of the step that ends at each bound, where known: between two that do not follow lie others.
    """
    index = np.arange(bounds.size - 1, dtype=np.int64) + before if numbers is None else numbers[1:]
    keep = index >= WARM_UP
    if numbers is not None:
        keep &= np.diff(numbers) == 1
    count = int(bounds.size - 1 + before) if bounds.size else 0
    return Steps(how, count, index[keep], bounds[:-1][keep], bounds[1:][keep])
