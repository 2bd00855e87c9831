"""The page of `commlens verify`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import IO, TYPE_CHECKING

from commlens.analyzers.verification import INCONCLUSIVE, LEVEL
from commlens.render.gain import signed
from commlens.render.words import NOT_KNOWN, milliseconds, open_console, percent
from commlens.trace.change_kinds import LOSSY
from commlens.trace.changes import Change, joined

if TYPE_CHECKING:
    from commlens.analyzers.report import Predicted
    from commlens.analyzers.verification import Measured
    from commlens.cli.verify_rounds import Losses


def print_verification(
    changes: Sequence[Change],
    predicted: Predicted | str,
    measured: Measured,
    losses: Mapping[str, Losses] | None,
    stream: IO[str],
) -> None:
    """Predicted, or why nothing was, beside measured, the verdict, and losses where they were kept."""
    rows = [
        ("fix", joined(changes)),
        ("before", f"{milliseconds(measured.before_ms)} ms a step"),
        ("after", f"{milliseconds(measured.after_ms)} ms a step"),
        ("gain", _gain(measured.gain_ms, measured.low_ms, measured.high_ms, measured.before_ms)),
        ("predicted", _predicted(predicted, measured.before_ms)),
        ("verdict", _verdict(measured)),
    ]
    if losses is not None:
        before, after = _course(losses["before"]), _course(losses["after"])
        rows += [("loss", f"{before} as it is, {after} with the fix")]
    console = open_console(stream)
    for name, value in rows:
        console.print(f"{name:<10} {value}", soft_wrap=True)
    note = accuracy_note(changes)
    if note is not None:
        console.print(f"\n{note}", soft_wrap=True)


def _course(losses: Losses) -> str:
    first, last = (NOT_KNOWN if each is None else f"{each:.6g}" for each in losses)
    return f"{first} to {last}"


def accuracy_note(changes: Sequence[Change]) -> str | None:
    """What was not looked at, None where the training is the same."""
    lossy = [change for change in changes if change.risk == LOSSY]
    if not lossy:
        return None
    return (
        "Losses are what the first and last backwards began with, scaled where the job scales them."
        f" They prove nothing: {joined(lossy)} may change accuracy. Train with and"
        " without it to the end that you judge by, each from several seeds, whose spread is the yardstick."
    )


def _gain(gain_ms: float, low_ms: float, high_ms: float, before_ms: float) -> str:
    share = percent(abs(gain_ms), before_ms)
    share = f"-{share}" if gain_ms < 0 else share
    return f"{signed(gain_ms)} ms ({share}), {signed(low_ms)} to {signed(high_ms)} at {percent(LEVEL)}"


def _predicted(predicted: Predicted | str, before_ms: float) -> str:
    if isinstance(predicted, str):
        return f"nothing: {predicted}"
    return _gain(predicted.gain_ms, predicted.low_ms, predicted.high_ms, before_ms)


def _verdict(measured: Measured) -> str:
    if measured.verdict != INCONCLUSIVE:
        return measured.verdict
    return f"{measured.verdict}: rounds alike differ by up to {milliseconds(measured.spread_ms)} ms; try more --rounds"
