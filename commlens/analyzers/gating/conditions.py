"""The conditions of `--fail-on`: a closed little language.

METRIC SIGN NUMBER [UNIT]    exposed>15%   step>120ms   overlap<50%   steps<20
finding:ID  finding:any      finding:straggler-rank
abstention:ID  abstention:any
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from commlens.analyzers.findings.looked_for import FINDINGS
from commlens.errors import UsageError

ANY: Final = "any"
FINDING, ABSTENTION = "finding", "abstention"
TIMES: Final = {
    "step": "step_ms",
    "compute": "compute_ms",
    "exposed": "exposed_ms",
    "wait": "exposed_wait_ms",
    "transfer": "exposed_transfer_ms",
    "unsplit": "exposed_unsplit_ms",
    "other": "other_ms",
    "hidden": "hidden_ms",
}
SHARES: Final = ("overlap", "matched")
COUNTS: Final = ("steps", "ranks", "dropped")
ABSTENTIONS: Final = (
    "aggregated-steps",
    "calibrated-links",
    "cost-model",
    "critical-path",
    "forward-phase",
    "graph-replays",
    "hang",
    "links",
    "missing-ranks",
    "outside-windows",
    "paused",
    "sampled-ranks",
    "sampled-steps",
    "step-boundaries",
    "steps",
    "stragglers",
    "time-budget",
    "unknown-ends",
    "unseen-collectives",
    "wait-transfer-split",
)
SIGNS: Final[dict[str, Callable[[float, float], bool]]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}
_LIMIT = re.compile(r"\s*([a-z-]+)\s*(>=|<=|>|<)\s*(\d+(?:\.\d*)?|\.\d+)\s*(%|ms|)\s*")
_NAMED = re.compile(rf"\s*({FINDING}|{ABSTENTION}):([a-z-]+)\s*")
_GRAMMAR = (
    f"METRIC>NUMBER (or <, >=, <=) with METRIC one of {', '.join(TIMES)} in ms or, but for step, in % of the step;"
    f" {', '.join(SHARES)} in %; {', '.join(COUNTS)}, which are counts; finding:ID, finding:any, abstention:ID or"
    " abstention:any"
)


@dataclass(frozen=True)
class Condition:
    """What must not be.

    Attributes:
        text: as it was written.
        metric: of `TIMES`, `SHARES` or `COUNTS`; or FINDING, ABSTENTION.
        sign: of `SIGNS`; "" of a name.
        limit: 0 of a name.
        unit: "ms", "%" or "".
        name: of the finding or abstention, or ANY; "" of a limit.
    """

    text: str
    metric: str
    sign: str = ""
    limit: float = 0.0
    unit: str = ""
    name: str = ""


def parse_condition(text: str) -> Condition:
    """Read a condition.

    Raises:
        UsageError: It is none.
    """
    named = _NAMED.fullmatch(text)
    if named is not None:
        return _named(text, named[1], named[2])
    found = _LIMIT.fullmatch(text)
    if found is None or found[1] not in (*TIMES, *SHARES, *COUNTS):
        raise UsageError(f"--fail-on cannot read {text!r}; it takes {_GRAMMAR}")
    metric, sign, limit, unit = found.groups()
    allowed = _units(metric)
    if unit not in allowed:
        wanted = " or ".join(each or "no unit" for each in allowed)
        raise UsageError(f"--fail-on {text!r}: {metric} takes {wanted}, as in {metric}{sign}{limit}{allowed[0]}")
    return Condition(text.strip(), metric, sign, float(limit), unit)


def _units(metric: str) -> tuple[str, ...]:
    if metric in COUNTS:
        return ("",)
    if metric in SHARES:
        return ("%",)
    return ("ms",) if metric == "step" else ("%", "ms")


def _named(text: str, kind: str, name: str) -> Condition:
    known = tuple(FINDINGS) if kind == FINDING else ABSTENTIONS
    if name != ANY and name not in known:
        raise UsageError(f"--fail-on {text!r}: no {kind} is called {name!r}; there are {ANY}, {', '.join(known)}")
    return Condition(text.strip(), kind, name=name)
