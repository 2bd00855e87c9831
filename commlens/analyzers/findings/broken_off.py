"""What is said of a run that has no end and shows no hang."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from commlens.analyzers.abstentions import name_ranks
from commlens.analyzers.across.signs import end_ns
from commlens.analyzers.across.stands import Stand, Wait
from commlens.analyzers.endings import gave_up
from commlens.analyzers.findings.hang_words import name_stand
from commlens.analyzers.findings.naming import seconds
from commlens.analyzers.ranks import RankFacts
from commlens.analyzers.report import Abstention

_LOST = "what a rank did in its last second or two is not recorded"


def broken_off(
    ranks: Sequence[RankFacts], stands: Sequence[Stand], infos: Mapping[int, Mapping[str, Any]]
) -> tuple[Abstention, ...]:
    """Why no hang is reported, where one might look for it; nothing for a run that ended as it should."""
    recorded = [facts for facts in ranks if not facts.who.imported or facts.who.dumped]
    if ranks and not recorded:
        if all(facts.lanes is not None for facts in ranks):
            return ()  # a profiler that wrote its kernels was stopped by the job itself
        return (Abstention("hang", "the imported files do not tell how the ranks ended", "a recording by commlens"),)
    without_end = [facts.rank for facts in recorded if facts.who.ended is None and not facts.who.dumped]
    if not without_end and not stands:
        return ()
    facts = {each.rank: each for each in recorded}
    parts = []
    if without_end:
        parts.append(_no_end(without_end, infos))
    if stands:
        parts.append(_under_way(facts, max(stands, key=_telling), infos))
    return (Abstention("hang", "; ".join(parts), _needs(stands, infos)),)


def _no_end(ranks: Sequence[int], infos: Mapping[int, Mapping[str, Any]]) -> str:
    """The same of all; of ranks whose recorders said why they stopped, why."""
    why = next((said for rank in ranks if (said := gave_up(infos.get(rank, {})))), None)
    stopped = f"killed, still running, or not recorded to the end: {why}" if why else "killed, or still running"
    return f"{name_ranks(ranks)} {_verb(ranks)} no end ({stopped}): {_LOST}"


def _telling(stand: Stand) -> tuple[bool, float]:
    return bool(stand.absent), stand.waits[0].stood_s


def _under_way(facts: Mapping[int, RankFacts], stand: Stand, infos: Mapping[int, Mapping[str, Any]]) -> str:
    wait = stand.waits[0]
    usual = "" if wait.normal_s is None else f" (up to {seconds(wait.normal_s)} before)"
    text = f"{name_ranks(stand.ranks)} {_verb(stand.ranks, 'was', 'were')} in {name_stand(facts, stand)}"
    when = "at most, when this was dumped" if wait.dumped else f"when the recording stops{usual}"
    text += f" for {seconds(wait.stood_s)} {when}: too short to call it a hang"
    left = _left(stand, infos)
    if left:
        return f"{text}; {name_ranks(left)} ended without it"
    return f"{text}; {_what(wait)} of {name_ranks(stand.absent)} does not show it" if stand.absent else text


def _what(wait: Wait) -> str:
    return "the dump" if wait.dumped else "the recording"


def _left(stand: Stand, infos: Mapping[int, Mapping[str, Any]]) -> list[int]:
    """Absent ranks whose process ended by itself."""
    return [rank for rank in stand.absent if end_ns(infos.get(rank, {})) is not None]


def _needs(stands: Sequence[Stand], infos: Mapping[int, Mapping[str, Any]]) -> str:
    left = sorted({rank for stand in stands for rank in _left(stand, infos)})
    if left:
        return f"the last lines of {name_ranks(left)}, which ended without a collective that others were in"
    if stands and all(stand.waits[0].dumped for stand in stands):
        return "dumps made later: torch makes them when a collective times out"
    return "the launcher's messages: which rank ended first and how"


def _verb(ranks: Sequence[int], one: str = "has", many: str = "have") -> str:
    return one if len(ranks) == 1 else many
