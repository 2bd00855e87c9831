"""Collectives, groups and sizes in words, as titles of findings have them."""

from __future__ import annotations

import numpy as np

from commlens.analyzers.across.communicators import Communicator
from commlens.analyzers.ranks import RankFacts
from commlens.analyzers.steps import FROM_OPTIMIZER, optimizer_ends
from commlens.trace.schema import MISSING

_UNITS = ("kB", "MB", "GB", "TB")


def name_group(communicator: Communicator) -> str:
    """ "group 0 (default_pg)", "the messages from rank 0 to rank 1"."""
    if communicator.point_to_point:
        return "the messages from rank {} to rank {}".format(*communicator.members)
    told = communicator.desc not in ("", "undefined")
    return f"group {communicator.name}" + (f" ({communicator.desc})" if told else "")


def name_row(facts: RankFacts, row: int) -> str:
    """ "all_reduce of 4.0 MB float32"."""
    columns = facts.columns
    op, dtype = (_word(columns.words[name].words, int(columns.words[name].codes[row])) for name in ("op", "dtype"))
    count = int(columns.collectives["bytes"][row])
    return (op or "a collective") + (f" of {size(count)}" if count > 0 else "") + (f" {dtype}" if dtype else "")


def size(count: int) -> str:
    """Bytes in decimal units: "4.2 MB"."""
    if count < 1000:
        return f"{count} B"
    power = min((len(str(count)) - 1) // 3, len(_UNITS))
    scaled = count / 1000**power
    return f"{scaled:.{0 if scaled >= 100 else 1}f} {_UNITS[power - 1]}"


def seconds(value: float) -> str:
    """ "3 ms", "0.4 s", "12.3 s", "1800 s"."""
    if value < 0.1:
        return f"{1000 * value:.0f} ms"
    return f"{value:.{0 if value >= 100 else 1}f} s"


def step_of(facts: RankFacts, row: int) -> int | None:
    """Optimizer step in which a row was issued, 0 is the job's first; None where steps were not seen."""
    steps, issued = facts.steps, int(facts.columns.collectives["issued_ns"][row])
    if steps.how != FROM_OPTIMIZER or not steps.index.size or issued < steps.start_ns[0]:
        return None
    ends, numbers = optimizer_ends(facts.columns)  # not all steps between those that are analysed need be
    return int(numbers[np.searchsorted(ends, issued, side="right") - 1]) + 1


def _word(words: list[str], code: int) -> str:
    return words[code] if code != MISSING else ""
