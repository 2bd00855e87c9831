"""Judges how much longer parts of the step may have become."""

from __future__ import annotations

from collections.abc import Sequence

from commlens.analyzers.comparison.compared import Comparison
from commlens.analyzers.comparison.difference import LONGER, Difference
from commlens.analyzers.comparison.untold import why_untold
from commlens.analyzers.gating.outcome import PASSED, TRIPPED, UNJUDGED, Outcome
from commlens.analyzers.gating.regressions import PARTS, Regress
from commlens.analyzers.numerals import plain

_UNSPLIT = 0.1  # of the exposed time: less is within what a gate can be off by anyway


def judge_comparison(
    limits: Sequence[Regress], comparison: Comparison, strict: bool = False, force: bool = False
) -> tuple[Outcome, ...]:
    """What became of each limit, in their order.

    A limit trips where the part became longer beyond doubt, and the middle of the change is above the limit: noise
    alone trips it no more often than the interval misses. `strict` trips it unless the whole interval is below: what
    cannot be told is then no pass.

    Args:
        limits: of parts.
        comparison: of two runs.
        strict: as above.
        force: judge runs that should not be compared.
    """
    return tuple(_judge(limit, comparison, strict, force) for limit in limits)


def _judge(limit: Regress, comparison: Comparison, strict: bool, force: bool) -> Outcome:
    field = PARTS[limit.part]
    pair = comparison.step if field == "step_ms" else comparison.parts[field]
    gate = f"--max-regress {limit.text}"
    obstacle = (None if force else _incomparable(limit, comparison)) or _unsplit(limit, comparison)
    obstacle = obstacle or _unknown(limit, pair, comparison)
    if obstacle is not None:
        return Outcome(gate, UNJUDGED, obstacle, unit=limit.unit)
    value = pair.change_percent if limit.unit == "%" else pair.change_ms
    assert value is not None and pair.high_ms is not None and pair.before_ms is not None
    high = 100 * pair.high_ms / pair.before_ms if limit.unit == "%" else pair.high_ms
    trips = high > limit.limit if strict else pair.verdict == LONGER and value > limit.limit
    return Outcome(gate, TRIPPED if trips else PASSED, _said(limit, pair, comparison), value, limit.unit)


def _incomparable(limit: Regress, comparison: Comparison) -> str | None:
    if comparison.refusals:
        return "; ".join(comparison.refusals)
    before, after = comparison.before, comparison.after
    if before.world_size != after.world_size:
        return f"world sizes differ ({before.world_size} and {after.world_size}); --force judges all the same"
    partly = [each for each in (before, after) if each.ranks < each.world_size]
    if partly and limit.part != "step":
        each = partly[0]
        return f"only {each.ranks} of {each.world_size} ranks of {each.path} were recorded; --force judges all the same"
    return None


def _unsplit(limit: Regress, comparison: Comparison) -> str | None:
    """Waiting and transfer are two runs' alike only where nearly all that was exposed is known to be either."""
    if limit.part not in ("wait", "transfer"):
        return None
    whole, part = comparison.parts["exposed_ms"], comparison.parts["exposed_unsplit_ms"]
    sides = (
        (comparison.before, whole.before_ms, part.before_ms),
        (comparison.after, whole.after_ms, part.after_ms),
    )
    for side, exposed, unsplit in sides:
        if exposed and unsplit and unsplit > _UNSPLIT * exposed:
            share = f"{100 * unsplit / exposed:.0f} %"
            return f"{share} of the exposed time of {side.path} could not be split into waiting and transfer"
    return None


def _unknown(limit: Regress, pair: Difference, comparison: Comparison) -> str | None:
    """Why there is nothing to judge by."""
    if pair.change_ms is None:
        return f"{limit.part} is not known in both runs"
    if pair.verdict is None:
        return f"steps do not tell how sure the change of {limit.part} is: {why_untold(comparison, limit.part)}"
    if limit.unit == "%" and not pair.before_ms:
        return f"{limit.part} was 0 ms before, of which there is no percentage: {limit.part}=2ms sets a limit"
    return None


def _said(limit: Regress, pair: Difference, comparison: Comparison) -> str:
    """Of a change that is known, see `_unknown`."""
    share = "" if pair.change_percent is None else f", {_signed(pair.change_percent)} %"
    sure = f"{100 * comparison.level:.0f} % interval {_signed(pair.low_ms)} to {_signed(pair.high_ms)} ms"
    return (
        f"{limit.part} changed from {_plain(pair.before_ms, 4)} to {_plain(pair.after_ms, 4)} ms"
        f" ({_signed(pair.change_ms)} ms{share}; {sure}: {pair.verdict})"
    )


def _signed(value: float | None) -> str:
    return f"{'-' if value is not None and value < 0 else '+'}{_plain(value and abs(value), 3)}"


def _plain(value: float | None, digits: int) -> str:
    return "?" if value is None else plain(value, digits)
