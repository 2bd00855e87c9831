"""What the messages of one communicator cost: from its own transfers, else from a calibration."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from commlens.analyzers.across.matching import Matched
from commlens.analyzers.across.transfers import Transfers
from commlens.analyzers.intervals import Ints
from commlens.analyzers.whatif.coefficients import Line, calibrated_line, measured_line, meeting
from commlens.analyzers.whatif.sharing import Sharing, alone, beside, find_sharing
from commlens.analyzers.whatif.textbook import carried_over
from commlens.trace.calibration import Calibration, calibrated_as
from commlens.trace.schema import MISSING


def without_sharing(matched: Matched, measured: Transfers, taken_ns: Ints, workers: int) -> tuple[Sharing, Ints]:
    """How much collectives slowed each other down, and what each would have taken alone."""
    which, begun = measured.which, measured.timed.time_ns[measured.which]
    if workers != 2 or not which.size or (begun == MISSING).any():
        return alone(), taken_ns
    order = which[np.argsort(begun, kind="stable")]
    starts, taken = measured.timed.time_ns[order], taken_ns[order]
    together = beside(starts, starts + taken)
    sharing, solo = find_sharing(matched.bytes[order], taken, together), taken_ns.copy()
    factor = sharing.factor[0] if sharing.measured else 0.0
    solo[order] = np.maximum(taken - (together * factor / (1 + factor)).astype(np.int64), 0)
    return sharing, solo


def lines_of(matched: Matched, which: Ints, solo_ns: Ints, calibration: Calibration | None) -> dict[str, Line | str]:
    """What messages cost, by operation."""
    codes = np.unique(matched.op[which])
    parts = {matched.ops[code]: which[matched.op[which] == code] for code in codes}
    found = {op: _line(matched, op, own, solo_ns, calibration) for op, own in parts.items()}
    return {op: _borrowed(matched, op, found, parts[op], solo_ns) or line for op, line in found.items()}


def _borrowed(matched: Matched, op: str, found: dict[str, Line | str], own: Ints, solo_ns: Ints) -> Line | None:
    """Of one message size only: what latency is of it and what bandwidth, as another operation of the group says."""
    size = matched.bytes[own]
    if isinstance(found[op], Line) or np.unique(size).size != 1:
        return None
    for other in sorted(found):
        line = found[other]
        if isinstance(line, Line) and (alike := carried_over(line, other, op, matched.communicator.size)):
            met = meeting(replace(alike, low_bytes=float(size[0]), high_bytes=float(size[0])), size, solo_ns[own])
            return replace(met, borrowed=True) if met is not None else None
    return None


def _line(matched: Matched, op: str, own: Ints, solo_ns: Ints, calibration: Calibration | None) -> Line | str:
    """What the job's own transfers tell; where they do not, what a calibration tells of them."""
    size, taken, members = matched.bytes[own], solo_ns[own], set(matched.communicator.members)
    line = measured_line(size, taken)
    if not isinstance(line, str):
        return line
    entries = calibration.entries if calibration is not None else ()
    same = [entry for entry in entries if entry.op == calibrated_as(op) and set(entry.ranks) == members]
    found = calibrated_line(same[0], size, taken) if same else None
    return found or f"{line}; commlens calibrate can measure it"
