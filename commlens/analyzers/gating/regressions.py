"""The limits of `compare --max-regress`: 5%, 3ms, exposed=10%, wait=2ms."""

from __future__ import annotations

import re
from dataclasses import dataclass

from commlens.analyzers.gating.conditions import TIMES
from commlens.errors import UsageError

PARTS = {name: field for name, field in TIMES.items() if name != "hidden"}  # more that is hidden is no loss
_FORM = re.compile(r"\s*(?:([a-z]+)\s*=\s*)?(\d+(?:\.\d*)?|\.\d+)\s*(%|ms|)\s*")


@dataclass(frozen=True)
class Regress:
    """By how much a part of the step may become longer.

    Attributes:
        text: as it was written.
        part: of `PARTS`.
        limit: in `unit`.
        unit: "%" of what it was before, or "ms".
    """

    text: str
    part: str
    limit: float
    unit: str


def parse_regress(text: str) -> Regress:
    """Read a limit; a bare one is of the step, one without a unit in percent.

    Raises:
        UsageError: It is none.
    """
    found = _FORM.fullmatch(text)
    part = "step" if found is None else found[1] or "step"
    if found is None or part not in PARTS:
        raise UsageError(
            f"--max-regress takes a percentage such as 5%, a time such as 3ms, or PART=5%, PART one of"
            f" {', '.join(PARTS)}, not {text!r}"
        )
    return Regress(text.strip(), part, float(found[2]), found[3] or "%")
