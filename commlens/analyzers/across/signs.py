"""Signs of life of one rank: how long its recording goes on, and how long it usually stands in a collective."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from commlens.analyzers.columns import Columns
from commlens.analyzers.ranks import RankFacts
from commlens.trace.schema import MISSING

_ENOUGH = 5  # collectives to learn from


def last_event_ns(columns: Columns) -> int:
    """The last thing the rank did, ns of its clock; MISSING where it did nothing."""
    rows = columns.collectives
    waited = rows["waited_ns"] + np.maximum(rows["blocked_ns"], 0)
    times = (rows["issued_ns"], rows["completed_ns"], waited, columns.phases["end_ns"])
    return max(int(each.max(initial=MISSING)) for each in times)


def end_ns(info: Mapping[str, Any]) -> int | None:
    """When the rank's process ended, ns of its clock; None where its recording broke off."""
    ended = (info.get("end") or {}).get("ns")
    return ended if isinstance(ended, int) else None


def alive_ns(info: Mapping[str, Any]) -> int | None:
    """The sign of life that a quiet recorder keeps; None where it kept none, as in recordings before there were any."""
    noted = info.get("alive_ns")
    return noted if isinstance(noted, int) else None


def last_sign_ns(facts: RankFacts, info: Mapping[str, Any]) -> int:
    """The rank's last sign of life: its last event, its recorder's last note, its end; ns of its clock."""
    noted = int(facts.columns.overhead["time_ns"].max(initial=MISSING))
    return max(last_event_ns(facts.columns), noted, alive_ns(info) or MISSING, end_ns(info) or MISSING)


def longest_pause_ns(facts: RankFacts, since_ns: int) -> int | None:
    """Longest time between two notes of the recorder after a moment; None where there are fewer than two."""
    notes = facts.columns.overhead["time_ns"]
    notes = np.sort(notes[notes >= since_ns])
    return int(np.diff(notes).max()) if notes.size > 1 else None


def normal_s(facts: RankFacts) -> float | None:
    """The longest from issue to end of a collective, seconds; between two issues where ends are not seen.

    None where too few were seen to tell what is normal.
    """
    rows = facts.columns.collectives
    usual = _after_start(facts)
    lasted = (rows["completed_ns"] - rows["issued_ns"])[usual & (rows["completed_ns"] != MISSING)]
    if lasted.size < _ENOUGH:
        lasted = np.diff(rows["issued_ns"][usual])
    return float(lasted.max()) / 1e9 if lasted.size >= _ENOUGH else None


def _after_start(facts: RankFacts) -> NDArray[np.bool_]:
    """Rows after the job's first steps, and not the first of their group: those wait for late starters."""
    groups = facts.columns.words["group"].codes
    usual = np.ones(groups.size, bool)
    usual[np.unique(groups, return_index=True)[1]] = False
    if facts.steps.index.size:
        usual &= facts.columns.collectives["issued_ns"] >= facts.steps.start_ns[0]
    return usual
