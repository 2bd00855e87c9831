"""Finding `exception`: an exception that nobody caught ended the job, and which rank raised first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from commlens.analyzers.abstentions import name_ranks
from commlens.analyzers.across.signs import end_ns
from commlens.analyzers.across.stands import Stand
from commlens.analyzers.endings import EXCEPTION, Raised, find_raised, interrupted, left_ns
from commlens.analyzers.findings.hang_words import name_stand
from commlens.analyzers.ranks import RankFacts
from commlens.analyzers.report import Action, Evidence, Finding

_LONGEST: Final = 160  # characters of an error in a sentence
_KINDS: Final = 4  # of errors that are named
_UNHEARD: Final = "a rank that left no word came first: one that was killed, or left by os._exit"


def exception_finding(
    ranks: Sequence[RankFacts], stands: Sequence[Stand], infos: Mapping[int, Mapping[str, Any]], launch: str
) -> tuple[Finding, ...]:
    """The finding, where a rank ended so; none where the recording does not tell, or somebody pressed Ctrl-C.

    Args:
        ranks: stage one of each rank, ascending.
        stands: collectives that were under way at the end.
        infos: rank.json of each.
        launch: the command that started the job, for what is to be run again.
    """
    raised = find_raised(infos)
    if not raised or interrupted(raised):
        return ()
    first = [each.rank for each in raised if each.error == raised[0].error]
    before, silent = _left_before(raised[0], infos), _without_end(infos)
    return (
        Finding(
            id="exception",
            title="; ".join([raised_words(raised), *_others(before, silent), *_stood(ranks, stands)]),
            layer="host",
            severity="critical",
            confidence="medium" if before or silent or _hosts(raised, ranks) > 1 else "high",
            ranks=tuple(sorted(first)),
            group=None,
            steps=(),
            evidence=tuple(_evidence(raised, before, silent)),
            ceiling_ms=None,
            actions=(_action(sorted({*first, *before, *silent}), launch),),
            could_be_wrong_if=tuple(_doubts(raised, ranks)),
        ),
    )


def raised_words(raised: Sequence[Raised]) -> str:
    """ "rank 1 ended by ValueError: no such file; after it ranks 0, 2-3 by RuntimeError"."""
    first = raised[0].error
    said = first if len(first) <= _LONGEST else f"{first[:_LONGEST]} ..."
    alike = [each.rank for each in raised if each.error == first]
    kinds: dict[str, list[int]] = {}
    for each in raised:
        if each.error != first:
            kinds.setdefault(each.kind, []).append(each.rank)
    others = [f"{name_ranks(ranks)} by {kind}" for kind, ranks in list(kinds.items())[:_KINDS]]
    others += ["others by other errors"] if len(kinds) > _KINDS else []
    after = f"; after {'it' if len(alike) == 1 else 'them'} {', '.join(others)}" if others else ""
    return f"{name_ranks(alike)} ended by {said}{after}"


def _left_before(first: Raised, infos: Mapping[int, Mapping[str, Any]]) -> list[int]:
    """Ranks that had left without an exception, as far as could be seen, when the first was raised."""
    return [rank for rank, info in sorted(infos.items()) if end_ns(info) is not None and _is_before(info, first)]


def _is_before(info: Mapping[str, Any], first: Raised) -> bool:
    return (info.get("end") or {}).get("how") != EXCEPTION and left_ns(info) < first.at_ns


def _without_end(infos: Mapping[int, Mapping[str, Any]]) -> list[int]:
    return [rank for rank, info in sorted(infos.items()) if end_ns(info) is None and not info.get("imported")]


def _others(before: Sequence[int], silent: Sequence[int]) -> list[str]:
    left = [f"{name_ranks(before)} had left before, with a code that is not seen"] if before else []
    return [*left, *([f"{name_ranks(silent)} wrote no end"] if silent else [])]


def _stood(ranks: Sequence[RankFacts], stands: Sequence[Stand]) -> list[str]:
    """What was under way; the collective in which most ranks were."""
    if not stands:
        return []
    stand = max(stands, key=lambda each: len(each.waits))
    facts = {each.rank: each for each in ranks}
    were = "was" if len(stand.ranks) == 1 else "were"
    return [f"{name_ranks(stand.ranks)} {were} in {name_stand(facts, stand)}"]


def _evidence(raised: Sequence[Raised], before: Sequence[int], silent: Sequence[int]) -> list[Evidence]:
    evidence = [Evidence("ranks that an exception ended", len(raised), "")]
    later = [each for each in raised if each.error != raised[0].error]
    if later:
        waited = round((later[0].at_ns - raised[0].at_ns) / 1e9, 3)
        evidence.append(Evidence(f"from there to the error of rank {later[0].rank}", waited, "s"))
    evidence += [Evidence("ranks that had left before", len(before), "")] if before else []
    return evidence + ([Evidence("ranks without an end", len(silent), "")] if silent else [])


def _action(where: Sequence[int], launch: str) -> Action:
    return Action(
        text=f"Read the traceback of {name_ranks(where)} in what the launcher printed, or in its logs (torchrun:"
        " --log-dir and --redirects 3 keep those of each rank).",
        change="repair what raised; errors of lost connections on other ranks are its consequences",
        fix=None,
        risk="none: looking changes nothing",
        min_torch=None,
        predicted=None,
        verify=f"commlens run -- {launch}",
    )


def _doubts(raised: Sequence[Raised], ranks: Sequence[RankFacts]) -> list[str]:
    all_told = len(raised) >= max((facts.who.world_size or 0 for facts in ranks), default=0)
    doubts = [] if all_told else [_UNHEARD]
    if len(raised) > 1 and _hosts(raised, ranks) > 1:
        doubts.append("the hosts' clocks differ by more than lies between the errors: then another rank was first")
    return doubts or ["a process of none of the ranks was the cause, such as a worker that loads data"]


def _hosts(raised: Sequence[Raised], ranks: Sequence[RankFacts]) -> int:
    which = {each.rank for each in raised}
    return len({facts.who.machine for facts in ranks if facts.rank in which})
