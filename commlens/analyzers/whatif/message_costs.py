"""What the messages of one communicator cost: from its own transfers, else from a calibration."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from commlens.analyzers.across.matching import Matched
from commlens.analyzers.across.transfers import Transfers
from commlens.analyzers.intervals import Ints
from commlens.analyzers.whatif.coefficients import DRAWS, SEED, Line, calibrated_line, measured_line, meeting
from commlens.analyzers.whatif.sharing import Sharing, alone, beside, find_sharing
from commlens.analyzers.whatif.textbook import carried_over, shape
from commlens.trace.calibration import Calibration, calibrated_as
from commlens.trace.schema import MISSING

_OTHER = "the group's other operations"
_SMALLEST = "the group's smallest messages, by which latency may be three times off"
_TINY = 1e-3  # of the size of the messages whose bandwidth is asked
_FEWEST = 2  # tiny messages
_LITTLE = 0.02  # of what the messages took: latency that small can be rough
_TIMES = 3.0


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


def lines_of(measured: Transfers, solo_ns: Ints, calibration: Calibration | None) -> dict[str, Line | str]:
    """What messages cost, by operation."""
    matched, which = measured.timed.matched, measured.which
    codes = np.unique(matched.op[which])
    parts = {matched.ops[code]: which[matched.op[which] == code] for code in codes}
    found = {op: _line(matched, op, own, solo_ns, calibration) for op, own in parts.items()}
    return {
        op: _borrowed(matched, op, found, parts[op], solo_ns) or _split(measured, op, line, parts[op], solo_ns) or line
        for op, line in found.items()
    }


def _split(measured: Transfers, op: str, line: Line | str, own: Ints, solo_ns: Ints) -> Line | None:
    """Of one message size only, and large: latency is what the group's smallest messages took, in any step.

    That is rough: first messages may also pay for connections. So latency has to be a small part of what messages
    took, the draws take it for anything from a third of this to three times as much, and predictions say so.
    """
    matched, ranks = measured.timed.matched, measured.timed.matched.communicator.size
    sizes, form = matched.bytes[own], shape(op, ranks)
    if isinstance(line, Line) or np.unique(sizes).size != 1 or form is None or ranks < 2:
        return None
    every, took = measured.every_ns, float(np.median(solo_ns[own]))
    small = np.flatnonzero((matched.bytes > 0) & (matched.bytes <= sizes[0] * _TINY) & (every > 0))
    forms = [(at, shape(matched.ops[matched.op[at]], ranks)) for at in small]
    latency = [every[at] * form.latency / other.latency for at, other in forms if other is not None]
    if len(latency) < _FEWEST or min(latency) > took * _LITTLE:
        return None
    random = np.random.default_rng(SEED)
    alpha = float(min(latency)) * np.append(1.0, _TIMES ** random.uniform(-1, 1, DRAWS))
    return Line(alpha, (took - alpha) / sizes[0], float(sizes[0]), float(sizes[0]), borrowed=_SMALLEST)


def _borrowed(matched: Matched, op: str, found: dict[str, Line | str], own: Ints, solo_ns: Ints) -> Line | None:
    """Of one message size only: what latency is of it and what bandwidth, as another operation of the group says."""
    size = matched.bytes[own]
    if isinstance(found[op], Line) or np.unique(size).size != 1:
        return None
    for other in sorted(found):
        line = found[other]
        if isinstance(line, Line) and (alike := carried_over(line, other, op, matched.communicator.size)):
            met = meeting(replace(alike, low_bytes=float(size[0]), high_bytes=float(size[0])), size, solo_ns[own])
            return replace(met, borrowed=_OTHER) if met is not None else None
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
