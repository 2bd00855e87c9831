"""Why steps do not tell whether a change is more than noise."""

from __future__ import annotations

from commlens.analyzers.comparison.compared import Comparison
from commlens.analyzers.comparison.noise import FEWEST_STEPS
from commlens.analyzers.numerals import counted


def why_untold(comparison: Comparison, what: str = "step") -> str:
    """Of a change that is known and has no interval, one clause.

    Args:
        comparison: in which it has none.
        what: changed.
    """
    for which, seen in (("first", comparison.before), ("second", comparison.after)):
        if seen.steps < FEWEST_STEPS:
            return f"the {which} run has {counted(seen.steps, 'step')}, {FEWEST_STEPS} are needed"
    if comparison.alike_runs:
        return f"the further runs of the first job do not tell its {what}"
    of = "the length" if what == "step" else f"the {what} time"
    return f"{of} of each single step is not known in both runs"
