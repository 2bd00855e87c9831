"""Where the time of each step went on one rank; the parts add up to the nanosecond."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from commlens.analyzers.blocked import Blocked
from commlens.analyzers.columns import Columns
from commlens.analyzers.intervals import Intervals, Ints, intersect, length, length_within, merge, shared_within
from commlens.analyzers.lanes import Lanes
from commlens.analyzers.steps import IN_WINDOWS, Steps
from commlens.trace.schema import MISSING

_OURS = {"dispatcher", "native"}  # sources that see every wait


@dataclass(frozen=True)
class Budget:
    """One rank's time per analysed step, int64 ns, shape (steps,) each.

    compute + exposed + other == step, always.

    Attributes:
        step: length of the step.
        compute: inside forward, backward or optimizer and not standing still; where the rank's devices were
            recorded, a compute kernel ran.
        exposed: the training thread stood still for a collective; on a device, one ran and no compute did.
        other: the rest: data loading, logging, Python, whatever no hook saw; on a device copies and idling.
        hidden: a collective was in flight and the rank did not stand still.
        overlap: hidden / (hidden + exposed) over all analysed steps; None without communication.
        other_parts: what a device did in `other`, see `Lanes.parts`; None where devices were not recorded.
    """

    step: Ints
    compute: Ints
    exposed: Ints
    other: Ints
    hidden: Ints
    overlap: float | None
    other_parts: dict[str, Ints] | None


def split_steps(columns: Columns, lanes: Lanes | None, steps: Steps, blocked: Blocked) -> Budget:
    """Split every analysed step of one rank into its parts."""
    standstill = blocked.merged
    phases, flying = lanes.compute if lanes else phases_of(columns), in_flight(columns)
    both = intersect(flying, standstill)
    windows = steps.start_ns, steps.end_ns

    def within(times: Intervals) -> Ints:
        return length_within(times, *windows)

    step, exposed = steps.end_ns - steps.start_ns, within(standstill)
    compute = within(phases) - shared_within(phases, standstill, *windows)
    hidden = within(flying) - within(both)
    return Budget(
        step=step,
        compute=compute,
        exposed=exposed,
        other=step - compute - exposed,
        hidden=hidden,
        overlap=overlap(int(hidden.sum()), int(exposed.sum())),
        other_parts=lanes.parts(*windows) if lanes else None,
    )


def overlap_whole_trace(columns: Columns, blocked: Blocked) -> float | None:
    """Overlap over everything recorded, no step filter."""
    standstill, flying = blocked.merged, in_flight(columns)
    return overlap(length(flying) - length(intersect(flying, standstill)), length(standstill))


def overlap(hidden: int, exposed: int) -> float | None:
    """Share of communication that is hidden, 0..1; None where there is none."""
    return hidden / (hidden + exposed) if hidden + exposed else None


def in_flight(columns: Columns) -> Intervals:
    """When at least one collective was between its start and its known end, merged."""
    started, completed = columns.collectives["started_ns"], columns.collectives["completed_ns"]
    known = (started != MISSING) & (completed != MISSING)
    return merge(started[known], completed[known])


def unanswerable(columns: Columns, lanes: Lanes | None, blocked: Blocked, steps: Steps) -> str | None:
    """Why this rank's standstill cannot be told, or None where it can.

    A host's wait on a CUDA collective only orders streams: how long it took says nothing of the
    device, so ranks whose collectives are timed on the device need their compute kernels as well.
    """
    rows, timing = columns.collectives, columns.words["timing"]
    asked = _asked(rows["issued_ns"], steps)
    if not rows["issued_ns"].size:
        # A profiler that saw kernels would have seen those of collectives.
        seen = lanes is not None and not lanes.unclassified_count and lanes.compute.starts.size
        return None if seen else "no collective was recorded"
    if np.mean(timing.equals("enqueue_only")[asked]) > 0.5:
        return "only the host's call of most collectives is known, not when they ran on the device"
    device = np.mean(timing.equals("device")[asked]) > 0.5
    if device and (lanes is None or not lanes.compute.starts.size):
        return "collectives were timed on the device, but its compute was not recorded"
    if lanes is not None and not device:
        return "kernels were recorded, but collectives ran elsewhere: when the device waited for them is not known"
    if lanes is None and not blocked.known.any() and not _OURS & set(columns.words["source"].words):
        return "the files do not tell when the training thread waited for a collective"
    if not (blocked.known.any() or (rows["completed_ns"] != MISSING).any()):
        return "no collective has a known end, and no wait for one was seen"
    return None


def _asked(issued: Ints, steps: Steps) -> NDArray[np.bool_]:
    """Rows whose times matter, shape (rows,): those in analysed steps where only these are known of the device."""
    if steps.how != IN_WINDOWS or not steps.index.size:
        return np.ones(issued.size, bool)
    inside = length_within(steps.window, issued, issued + 1) > 0
    return inside if inside.any() else np.ones(issued.size, bool)


def phases_of(columns: Columns) -> Intervals:
    """Forward, backward and optimizer of the training thread, merged."""
    rows = columns.phases
    own = (rows["thread"] == columns.training_thread) & (rows["end_ns"] > rows["start_ns"])
    return merge(rows["start_ns"][own], rows["end_ns"][own])
