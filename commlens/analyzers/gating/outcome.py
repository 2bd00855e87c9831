"""What became of a gate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

PASSED, TRIPPED, UNJUDGED = STATES = ("passed", "tripped", "cannot be judged")
NO_BUDGET: Final = "how much of a step is compute and how much communication is not known"


@dataclass(frozen=True)
class Outcome:
    """One gate, judged.

    Attributes:
        gate: as it was written.
        state: one of `STATES`. A gate that cannot look does not pass: it cannot be judged.
        said: what was measured, or why nothing could be, in one line.
        value: what was compared with the limit; None where nothing was.
        unit: of that: "ms", "%", "".
    """

    gate: str
    state: str
    said: str
    value: float | None = None
    unit: str = ""
