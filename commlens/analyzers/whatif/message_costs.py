"""What the messages of one communicator cost: from its own transfers, else from a calibration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from commlens.analyzers.across.by_size import MAD
from commlens.analyzers.across.costs import fit_cost
from commlens.analyzers.across.line import LEAST_MISFIT
from commlens.analyzers.across.matching import Matched
from commlens.analyzers.across.transfers import Transfers
from commlens.analyzers.intervals import Ints
from commlens.analyzers.whatif.coefficients import (
    DRAWS,
    SEED,
    Line,
    calibrated_line,
    exact_line,
    measured_line,
    meeting,
)
from commlens.analyzers.whatif.sharing import Sharing, alone, beside, find_sharing
from commlens.analyzers.whatif.textbook import carried_over, shape
from commlens.trace.calibration import Calibration, calibrated_as
from commlens.trace.schema import MISSING

_OTHER = "the group's other operations"
_SMALLEST = "the group's smallest messages, by which latency may be three times off"
_TINY = 1e-3  # of the size of the messages whose bandwidth is asked
_FEWEST = 2  # tiny messages
_MOSTLY = 0.5  # of the messages
_SIZES, _CLOSE = 4, 0.03  # sizes of messages, and their median relative distance from a line
_LITTLE = 0.1  # of what the messages took: latency that small can be rough
_TIMES = 3.0
# Nobody trains over less than 100 Mbit/s, of which headers leave data about 10 MB/s: bytes per ns.
_SLOWEST = 0.01
_SURE = 0.95  # of the draws of a fitted latency are below three times that of small messages, or the fit is not used


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
        op: _borrowed(matched, op, found, own, solo_ns)
        or _by_latency(measured, op, found[op], own, solo_ns)
        or found[op]
        for op, own in parts.items()
    }


def latency_lines(measured: Transfers, solo_ns: Ints, lines: Mapping[str, Line | str]) -> dict[str, Line]:
    """What messages cost that are latency alone, by operation, where `lines_of` has no line for them.

    A count or a norm is a few bytes. Where those would take less on the slowest link than a transfer scatters by, no
    faster link is seen in what they take. Of messages of more bytes that tells nothing.
    """
    matched, which = measured.timed.matched, measured.which
    found = {}
    for op, reason in lines.items():
        own = which[matched.op[which] == matched.ops.index(op)]
        own = own[(matched.bytes[own] > 0) & (solo_ns[own] > 0)]
        if isinstance(reason, str) and own.size and _invisible(matched, op, own, solo_ns):
            sizes = matched.bytes[own]
            line = exact_line(float(np.median(solo_ns[own])), 0.0)
            found[op] = replace(line, low_bytes=float(sizes.min()), high_bytes=float(sizes.max()), alone=reason)
    return found


def _invisible(matched: Matched, op: str, own: Ints, solo_ns: Ints) -> bool:
    """Whether the bytes of some collectives take less than one of them scatters by, however slow the link is."""
    form, taken = shape(op, matched.communicator.size), solo_ns[own]
    middle = float(np.median(taken))
    scatter = max(MAD * float(np.median(np.abs(taken - middle))), LEAST_MISFIT * middle)
    return bool(matched.bytes[own].max() * (form.per_byte if form is not None else 1.0) / _SLOWEST <= scatter)


def _by_latency(measured: Transfers, op: str, line: Line | str, own: Ints, solo_ns: Ints) -> Line | None:
    """What latency does not explain of large messages is bandwidth; latency is that of the group's smallest messages.

    For messages of one size only, and for those that ran beside each other: a link may carry such messages in turns or
    at once, so what one of them would have taken alone is not sure, only what all took. A line through few sizes of
    them that leaves room for far more latency than small messages had is none. Small messages are rough, since the
    first ones may also pay for connections: the draws take a third of their latency to three times as much, and
    predictions say so.
    """
    sizes, solo = measured.timed.matched.bytes[own], solo_ns[own]
    taken = np.full(solo_ns.size, MISSING, np.int64)
    taken[measured.which] = measured.ns
    together = _never_alone(sizes, solo < taken[own])
    latency = _latency_ns(measured, op, float(sizes.min()))
    if latency is None or latency > _LITTLE * solo.mean() or not (together or np.unique(sizes).size == 1):
        return None
    if isinstance(line, Line) and (_fits(sizes, solo) or np.quantile(line.alpha_ns, _SURE) <= _TIMES * latency):
        return None
    random = np.random.default_rng(SEED)
    alpha = latency * np.append(1.0, _TIMES ** random.uniform(-1, 1, DRAWS))
    beta = np.append(solo.mean(), solo[random.integers(0, solo.size, (DRAWS, solo.size))].mean(axis=1)) - alpha
    return Line(alpha, beta / sizes.mean(), float(sizes.min()), float(sizes.max()), borrowed=_SMALLEST)


def _never_alone(sizes: Ints, shared: NDArray[np.bool_]) -> bool:
    """Whether the messages of some size mostly ran beside others."""
    _, which = np.unique(sizes, return_inverse=True)
    which = which.reshape(-1)
    return bool((np.bincount(which, shared) > _MOSTLY * np.bincount(which)).any())


def _fits(sizes: Ints, solo_ns: Ints) -> bool:
    """Whether messages of many sizes lie on one line: then what each took alone was told rightly."""
    cost = fit_cost(sizes, solo_ns)
    return cost is not None and cost.residual is not None and cost.sizes >= _SIZES and cost.residual <= _CLOSE


def _latency_ns(measured: Transfers, op: str, bytes: float) -> float | None:
    """The least that messages far smaller than `bytes` took, in any step, as an operation's by the textbook's forms."""
    matched, every, ranks = measured.timed.matched, measured.every_ns, measured.timed.matched.communicator.size
    wanted = shape(op, ranks)
    small = np.flatnonzero((matched.bytes > 0) & (matched.bytes <= bytes * _TINY) & (every > 0))
    forms = [(at, shape(matched.ops[matched.op[at]], ranks)) for at in small]
    if wanted is None or ranks < 2:
        return None
    known = [every[at] * wanted.latency / form.latency for at, form in forms if form is not None]
    return float(min(known)) if len(known) >= _FEWEST else None


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
