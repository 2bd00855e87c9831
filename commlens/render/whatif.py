"""Predictions as a page of text."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from commlens.analyzers.whatif.answers import Scenario, WhatIf
from commlens.render.columns import INDENT, PROSE, Column, clipped, fitted
from commlens.render.gain import interval, share_of, signed
from commlens.render.words import milliseconds

_WIDEST = 44  # characters of a change


def print_what_if(result: WhatIf, console: Console) -> None:
    """Print the recorded step, one line a set of changes, and what the numbers rest on."""
    console.print(Text(_headline(result), style="bold"), soft_wrap=True)
    if result.abstention is not None:
        _notes(console, [f"nothing is predicted: {result.abstention}"])
    _notes(console, result.notes)
    told = [each for each in result.scenarios if each.predicted is not None]
    if told:
        console.print()
        console.print(Padding(_table(told, result.baseline.measured_ms, console), (0, 0, 0, INDENT), expand=False))
    _notes(console, _small_print(result))


def _notes(console: Console, texts: Iterable[str]) -> None:
    width = min(console.width, PROSE) - INDENT
    for text in texts:
        for number, line in enumerate(textwrap.wrap(text, width - INDENT)):
            console.print(Text(" " * (INDENT * (1 + bool(number))) + line, style="dim"), soft_wrap=True)


def _headline(result: WhatIf) -> str:
    measured, replayed = result.baseline.measured_ms, result.baseline.replayed_ms
    if measured is None:
        return "This run cannot be simulated"
    return f"A step took {milliseconds(measured)} ms; simulated as it was: {milliseconds(replayed)} ms"


def _table(scenarios: list[Scenario], measured_ms: float | None, console: Console) -> Table:
    told = [(each, each.predicted) for each in scenarios if each.predicted is not None]
    return fitted(
        console,
        [
            Column("change", [clipped(console, ", ".join(each.set), _WIDEST) for each, _ in told], right=False),
            Column("step ms", [milliseconds(predicted.step_ms) for _, predicted in told]),
            Column("gain ms", [signed(predicted.gain_ms) for _, predicted in told]),
            Column("90 % interval", [interval(predicted) for _, predicted in told]),
            Column("of the step", [share_of(predicted.gain_ms, measured_ms) for _, predicted in told], drop=2),
            Column("ceiling ms", [milliseconds(each.ceiling_ms) for each, _ in told], drop=1),
        ],
    )


def _small_print(result: WhatIf) -> list[str]:
    """Why some sets were not predicted, then what the others rest on, each once."""
    reasons: dict[str, list[str]] = {}
    for each in result.scenarios:
        if each.abstention is not None and each.abstention != result.abstention:
            reasons.setdefault(each.abstention, []).append(" with ".join(each.set))
    refused = [f"{', '.join(sets)}: not predicted, {reason}" for reason, sets in reasons.items()]
    rests = dict.fromkeys(text for each in result.scenarios for text in each.assumptions if each.predicted)
    return [*refused, *(f"assumed: {text}" for text in rests)]
