"""What counters do not tell of a run, and why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from commlens.analyzers.counted.link_lines import UNSURE, LinkLine
from commlens.analyzers.counted.traffic import FEWEST, Traffic
from commlens.analyzers.numerals import counted
from commlens.analyzers.ranks import RankFacts

NEEDS = "a run recorded with counters, long enough to be read often"


def why_unread(
    ranks: Sequence[RankFacts],
    infos: Mapping[int, Mapping[str, Any]],
    traffic: Sequence[Traffic],
    lines: Sequence[LinkLine],
) -> Iterator[str]:
    """Reasons why links, or some of them, were not judged; none where all were."""
    if not traffic:
        yield _nothing(ranks, infos)
        return
    machines = {facts.who.machine: facts.who.host or facts.who.machine for facts in ranks}
    read = {each.node.machine for each in traffic}
    absent = [host for machine, host in machines.items() if machine not in read]
    if absent:
        yield f"no counters were read on {_hosts(absent)}"
    for reason, hosts in _by_reason(traffic).items():
        yield f"{reason} ({_hosts(hosts)})" if len(traffic) > 1 else reason
    silent = [line for line in lines if line.state == UNSURE]
    if silent:
        named = ", ".join(dict.fromkeys(f"{line.device} ({line.kind})" for line in silent[:4]))
        yield f"reads zero, which is idle or not supported: {named}{', ...' * (len(silent) > 4)}"


def _nothing(ranks: Sequence[RankFacts], infos: Mapping[int, Mapping[str, Any]]) -> str:
    if ranks and all(facts.who.imported for facts in ranks):
        return "the imported files have no counters of links"
    told = [infos.get(facts.rank, {}).get("counters") for facts in ranks]
    why = next((str(each["sampled_by"]) for each in told if isinstance(each, dict) and each.get("sampled_by")), "")
    return f"no counters of links were read{f': {why}' if why else ''}"


def _by_reason(traffic: Sequence[Traffic]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for each in traffic:
        reason = _too_few(each) if not each.enough else each.unknown and f"what links had to carry: {each.unknown}"
        if reason:
            found.setdefault(reason, []).append(each.name)
    return found


def _too_few(traffic: Traffic) -> str:
    if not traffic.steps:
        return "no analysed step lies between two readings of the counters"
    times = counted(int(traffic.readings), "time")
    return f"counters were read {times} in the analysed steps, at least {FEWEST} are needed"


def _hosts(names: Sequence[str]) -> str:
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return f"host{'s' * (len(names) > 1)} {', '.join(names[:4])}{more}"
