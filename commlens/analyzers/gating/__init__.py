"""Gates for CI: conditions on a report, limits on a comparison, and what became of them.

(`whatif/gates.py` is another thing: when the simulator refuses to answer.)
"""

from commlens.analyzers.gating.conditions import Condition, parse_condition
from commlens.analyzers.gating.of_comparison import judge_comparison
from commlens.analyzers.gating.of_report import judge_report
from commlens.analyzers.gating.outcome import PASSED, STATES, TRIPPED, UNJUDGED, Outcome
from commlens.analyzers.gating.regressions import Regress, parse_regress

__all__ = [
    "PASSED",
    "STATES",
    "TRIPPED",
    "UNJUDGED",
    "Condition",
    "Outcome",
    "Regress",
    "judge_comparison",
    "judge_report",
    "parse_condition",
    "parse_regress",
]
