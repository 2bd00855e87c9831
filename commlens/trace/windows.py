"""Deep windows joined with the light recording of the same rank: what ran when, as torch.profiler saw it.

A window's file is read by the importer of Kineto traces, once: what it makes is kept by content. Its collectives are
the recorder's own rows once more, so each is looked for among those of the same operation (and group, where the
profiler names it) by when it was issued, on two readings of one clock.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from commlens.errors import CommlensError
from commlens.trace.columns import Integers, from_arrow, names_to_arrow, one_array, to_arrow
from commlens.trace.schema import MISSING, TIMINGS, WINDOW_FILE, arrow_schema

if TYPE_CHECKING:
    from commlens.trace.rank import Rank
    from commlens.trace.storage.files import Files

WRITTEN: Final = frozenset({"done", "cut"})  # states of a window that has a file
_MARGIN_NS: Final = 1_000_000_000  # around a window, where its collectives are looked for
_TOLERANCE_NS: Final = 200_000  # between two readings of one issue
_MOST_CACHED: Final = 4096


@dataclass
class WindowTrace:
    """What the profiler recorded of one window, on the clock of the rank.

    Attributes:
        first_step: of the window.
        end_step: the step after its last.
        rank: the imported trace, its tables not shifted.
        shift_ns: to be added to its times.
        span: of the window, ns of the rank's clock; None where not known.
    """

    first_step: int
    end_step: int
    rank: Rank
    shift_ns: int
    span: tuple[int, int] | None


def entries(info: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    """The objects in a list of rank.json such as `windows`, `paused` or `control`; none where it is damaged."""
    found = info.get(name)
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def window_traces(files: Files, info: Mapping[str, Any], notes: list[str]) -> list[WindowTrace]:
    """The windows of a rank whose files can be read; of the others a note says why not.

    Args:
        files: of the rank.
        info: its rank.json.
        notes: what a reader of results should know is added.
    """
    found = []
    for window in entries(info, "windows"):
        if window.get("state") not in WRITTEN or type(window.get("first_step")) is not int:
            continue
        name = WINDOW_FILE.format(step=window["first_step"])
        path = files.path / name
        try:
            with files.as_local(name) as path:
                found.append(_trace(path, path.parent == files.path, window, info))
        except (CommlensError, OSError) as error:
            why = str(error).replace(str(path), str(files.path / name))  # a copy has gone by now
            notes.append(f"deep window at step {window['first_step']} of rank {info.get('rank')}: {why}")
    return found


def _trace(path: Path, stays: bool, window: Mapping[str, Any], info: Mapping[str, Any]) -> WindowTrace:
    from commlens.trace.folders import read_folder
    from commlens.trace.importers.cache import cached_run

    ranks = read_folder(cached_run([path], None, None, _MOST_CACHED, beside=stays)).ranks
    then, at_start = window.get("wall_offset_ns"), (info.get("clock") or {}).get("wall_offset_ns")
    # The profiler reads the wall clock, which may have been set since the recording began.
    shift = at_start - then if isinstance(then, int) and isinstance(at_start, int) else 0
    bounds = window.get("start_ns"), window.get("end_ns")
    span = (bounds[0], bounds[1]) if isinstance(bounds[0], int) and isinstance(bounds[1], int) else None
    first, steps = window["first_step"], window.get("steps")
    end = first + steps if type(steps) is int else first
    return WindowTrace(first, end, next(iter(ranks.values())), shift, span)


def with_kernels(rows: pa.Table, traces: Sequence[WindowTrace]) -> pa.Table:
    """The kernels table with what ran in the windows."""
    return pa.concat_tables([rows, *(_shifted(trace) for trace in traces)]).unify_dictionaries().combine_chunks()


def _shifted(trace: WindowTrace) -> pa.Table:
    table = trace.rank.table("kernels")
    for name in ("launched_ns", "start_ns", "end_ns"):
        values = from_arrow(one_array(table, name))
        moved = np.where(values == MISSING, MISSING, values + trace.shift_ns)
        table = table.set_column(table.schema.get_field_index(name), name, to_arrow(moved, pa.int64()))
    return table.cast(arrow_schema("kernels"))


def with_window_times(rows: pa.Table, traces: Sequence[WindowTrace], rank: int, notes: list[str]) -> pa.Table:
    """The collectives table with what the windows tell of its rows.

    Timed on a device: begin, end and timing, where they are not known from elsewhere. On the host only the begin is
    taken: the recorder's own end is as near.
    """
    light = _Light(rows)
    for trace in traces:
        own, seen = match(light, trace)
        light.learn(own, seen)
        total = trace.rank.table("collectives").num_rows
        left = total - own.size
        if left:
            which = f"deep window at step {trace.first_step} of rank {rank}"
            notes.append(f"{which}: {left} of its {total} collectives were not found among those recorded")
    return light.table()


@dataclass(frozen=True)
class Seen:
    """Collectives of a window that were found, shape (found,)."""

    started: Integers
    completed: Integers
    device: NDArray[np.bool_]


class _Light:
    """The recorder's collectives, as far as windows change them."""

    def __init__(self, rows: pa.Table) -> None:
        self._rows = rows
        self.issued, started, completed = (
            from_arrow(one_array(rows, name)) for name in ("issued_ns", "started_ns", "completed_ns")
        )
        self.started, self.completed = started.copy(), completed.copy()
        self.step = from_arrow(one_array(rows, "step"))
        self.op, self.group, self._timing = (_words(rows, name) for name in ("op", "group", "timing"))

    def learn(self, own: NDArray[np.intp], seen: Seen) -> None:
        unknown = seen.device & (self._timing[own] != "device")
        device = own[unknown]
        self.started[device], self.completed[device] = seen.started[unknown], seen.completed[unknown]
        self._timing[device] = "device"
        host, begun = own[~seen.device], seen.started[~seen.device]
        ended = np.where(self.completed[host] == MISSING, np.iinfo(np.int64).max, self.completed[host])
        self.started[host] = np.clip(begun, self.issued[host], np.maximum(ended, self.issued[host]))

    def table(self) -> pa.Table:
        """The rows, changed."""
        places = {word: code for code, word in enumerate(TIMINGS)}
        codes = np.array([places.get(word, MISSING) for word in self._timing], np.int64)
        schema = arrow_schema("collectives")
        changed = {
            "started_ns": to_arrow(self.started, pa.int64()),
            "completed_ns": to_arrow(self.completed, pa.int64()),
            "timing": names_to_arrow(codes, TIMINGS, schema.field("timing").type),
        }
        table = self._rows
        for name, values in changed.items():
            table = table.set_column(table.schema.get_field_index(name), schema.field(name), values)
        return table


def _words(rows: pa.Table, column: str) -> NDArray[Any]:
    """A names column as an array of words, "" where there is none."""
    array = one_array(rows, column)
    codes = from_arrow(array)
    words = np.array([*array.dictionary.to_pylist(), ""], object) if isinstance(array, pa.DictionaryArray) else None
    return words[codes] if words is not None else np.full(codes.shape, "", object)


def match(light: _Light, trace: WindowTrace) -> tuple[NDArray[np.intp], Seen]:
    """What is the same collective on both sides: rows of the recorder, and the times that a window has of each."""
    table = trace.rank.table("collectives")
    issued, started, completed = (
        from_arrow(one_array(table, name)) + trace.shift_ns for name in ("issued_ns", "started_ns", "completed_ns")
    )
    device = _words(table, "timing") == "device"
    op, group = _words(table, "op"), _words(table, "group")
    named = np.isin(group, list(set(light.group.tolist())))
    near = _near(light.issued, trace.span, issued)
    inside = (light.step >= trace.first_step) & (light.step < trace.end_step)
    pairs = []
    for key in sorted({(o, g if known else None) for o, g, known in zip(op, group, named, strict=True)}, key=str):
        own = np.flatnonzero(near & (light.op == key[0]) & ((light.group == key[1]) if key[1] is not None else True))
        seen = np.flatnonzero((op == key[0]) & ((group == key[1]) if key[1] is not None else ~named))
        seen = seen[np.argsort(issued[seen], kind="stable")]
        pairs.append(_paired(own, seen, light.issued, issued, inside))
    own = np.concatenate([each[0] for each in pairs] or [np.zeros(0, np.intp)])
    rows = np.concatenate([each[1] for each in pairs] or [np.zeros(0, np.intp)])
    return own, Seen(started[rows], completed[rows], device[rows])


def _near(light: Integers, span: tuple[int, int] | None, issued: Integers) -> NDArray[np.bool_]:
    if span is None:
        span = (int(issued.min(initial=0)), int(issued.max(initial=0)))
    return np.asarray((light >= span[0] - _MARGIN_NS) & (light <= span[1] + _MARGIN_NS))


def _paired(
    own: NDArray[np.intp], seen: NDArray[np.intp], light: Integers, traced: Integers, inside: NDArray[np.bool_]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Pairs of one key, both sides in the order of issue.

    Both sides are gone through together; what has nobody on the other side within `_TOLERANCE_NS` is passed over. A
    thread that lost its core between the two readings of an issue makes them differ by more: where as many are left
    on both sides between two pairs, these are the same by their order; and so they are before the first pair and after
    the last one, of those that were issued `inside` the window's steps.
    """
    if not own.size or not seen.size:
        return own[:0], seen[:0]
    a, b = light[own], traced[seen]
    left, right = _merged(a.tolist(), (b - _usual(a, b)).tolist())
    bounds = np.flatnonzero(inside[own])
    if left and bounds.size:
        left = [min(int(bounds[0]), left[0]) - 1, *left, max(int(bounds[-1]), left[-1]) + 1]
        right = [-1, *right, b.size]
    pairs = _filled(np.array(left, np.intp), np.array(right, np.intp))
    real = (pairs[1] >= 0) & (pairs[1] < b.size)
    return own[pairs[0][real]], seen[pairs[1][real]]


def _usual(a: Integers, b: Integers) -> int:
    """What `b` is later than the nearest of `a`, ns, median: what the two readings of one issue usually differ by."""
    after = np.searchsorted(a, b).clip(0, a.size - 1)
    before = (after - 1).clip(0)
    away = np.where(np.abs(b - a[before]) <= np.abs(a[after] - b), b - a[before], b - a[after])
    near = away[np.abs(away) <= _TOLERANCE_NS]
    return int(np.median(near)) if near.size else 0


def _merged(a: list[int], b: list[int]) -> tuple[list[int], list[int]]:
    """Places of those that are near each other, both sides ascending."""
    left, right, i, j = [], [], 0, 0
    while i < len(a) and j < len(b):
        later = b[j] - a[i]
        if abs(later) <= _TOLERANCE_NS:
            left.append(i)
            right.append(j)
        i += later >= -_TOLERANCE_NS
        j += later <= _TOLERANCE_NS
    return left, right


def _filled(left: NDArray[np.intp], right: NDArray[np.intp]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The pairs, and those between two of them where both sides have as many left."""
    between = np.diff(left)
    gaps = np.flatnonzero((between > 1) & (between == np.diff(right)))
    more = [np.arange(1, between[gap]) for gap in gaps]
    extra = [[side[gap] + each for gap, each in zip(gaps, more, strict=True)] for side in (left, right)]
    return np.concatenate([left, *extra[0]]), np.concatenate([right, *extra[1]])
