"""Finding `desync`: ranks of one group did different things at the same place of its sequence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from commlens.analyzers.abstentions import name_ranks
from commlens.analyzers.across.disagreements import Disagreement, Side
from commlens.analyzers.across.shifts import SKIPPED
from commlens.analyzers.findings.naming import name_group, name_row, step_of
from commlens.analyzers.ranks import RankFacts
from commlens.analyzers.report import Action, Evidence, Finding
from commlens.trace.schema import MISSING

_SURE = 3  # collectives in a row that fit when moved


def desync_finding(ranks: Sequence[RankFacts], found: Disagreement, launch: str) -> Finding:
    """The finding of one disagreement."""
    by_number = {facts.rank: facts for facts in ranks}
    first = by_number[found.sides[0].ranks[0]]
    step = step_of(first, found.sides[0].row)
    named = found.odd or tuple(sorted(rank for side in found.sides for rank in side.ranks))
    title = _shifted(found, by_number) if found.shift is not None else _different(found, by_number)
    return Finding(
        id="desync",
        title=title + (f" (step {step})" if step is not None else ""),
        layer="host",
        severity="critical",
        confidence="high" if found.odd and (found.shift is None or found.shift.compared >= _SURE) else "medium",
        ranks=named,
        group=found.matched.communicator.name,
        steps=() if step is None else (step,),
        evidence=tuple(_evidence(found, by_number, step)),
        ceiling_ms=None,
        actions=(_action(found, named, step, launch),),
        could_be_wrong_if=_doubts(found),
    )


def _different(found: Disagreement, facts: Mapping[int, RankFacts]) -> str:
    sides = "; ".join(_did(found, side, facts) for side in (*found.sides[1:], found.sides[0]))
    where = f"at sequence {found.seq} of {name_group(found.matched.communicator)}"
    if found.odd:
        return f"{name_ranks(found.odd)} did something else than the others {where}: {sides}"
    return f"the ranks disagree {where}, and no majority tells which is wrong: {sides}"


def _did(found: Disagreement, side: Side, facts: Mapping[int, RankFacts]) -> str:
    own = facts[side.ranks[0]]
    root = f" with root {own.columns.collectives['peer'][side.row]}" if found.roots else ""
    return f"{name_ranks(side.ranks)}: {name_row(own, side.row)}{root}"


def _shifted(found: Disagreement, facts: Mapping[int, RankFacts]) -> str:
    shift = found.shift
    assert shift is not None
    usual = found.sides[0].ranks
    skipped = shift.kind == SKIPPED
    where = f"{_places(found)} of {name_group(found.matched.communicator)}"
    side = found.sides[0 if skipped else 1]
    what = f"{name_row(facts[side.ranks[0]], side.row)}" + (f" and {shift.by - 1} more" if shift.by > 1 else "")
    seems = "" if shift.compared >= _SURE else "seems to have "
    did = f"{seems}skipped {what}" if skipped else f"{seems}issued {what} that the others did not"
    if found.odd:
        count = "one collective" if shift.by == 1 else f"{shift.by} collectives"
        moved = f"what follows is what the others do {count} {'later' if skipped else 'earlier'}"
        return f"{name_ranks(shift.ranks)} {did}, {where}; {moved}"
    other = "issued it on top" if skipped else "skipped it"
    return f"{name_ranks(shift.ranks)} {did}, or {name_ranks(usual)} {other}: {where}; no majority tells which"


def _places(found: Disagreement) -> str:
    """ "sequence 57", "sequence 50-57 (which of them cannot be told, they are alike)"."""
    assert found.shift is not None
    first = int(found.matched.seq[max(found.column + found.shift.first, 0)])
    return f"sequence {found.seq}" if first == found.seq else f"one of sequence {first}-{found.seq} (all alike)"


def _evidence(found: Disagreement, facts: Mapping[int, RankFacts], step: int | None) -> list[Evidence]:
    first = facts[found.sides[0].ranks[0]]
    issued = first.columns.collectives["issued_ns"]
    evidence = [Evidence("sequence number", found.seq, "")]
    evidence += [Evidence("step", step, "")] if step is not None else []
    for side in found.sides:
        count = int(facts[side.ranks[0]].columns.collectives["bytes"][side.row])
        evidence += [Evidence(f"message of {name_ranks(side.ranks)}", count, "bytes")] if count != MISSING else []
    if found.shift is not None:
        evidence.append(Evidence("collectives that fit when moved", found.shift.compared, ""))
    evidence.append(Evidence("collectives that disagree", found.count, ""))
    since = (int(issued[found.sides[0].row]) - int(issued[0])) / 1e9
    return [*evidence, Evidence(f"time since the first collective of rank {first.rank}", round(since, 3), "s")]


def _action(found: Disagreement, named: Sequence[int], step: int | None, launch: str) -> Action:
    when = f"step {step}" if step is not None else f"collective {found.seq} of the group"
    return Action(
        text=f"Look at what {name_ranks(named)} does at {when}: a branch, an exception or a shape that only some ranks"
        " have. With TORCH_DISTRIBUTED_DEBUG=DETAIL torch itself stops at the first collective that differs and"
        " shows the line of code.",
        change="let every rank of the group issue the same collectives, in the same order, with the same sizes",
        fix=None,
        risk="none for the job; DETAIL makes collectives slower while it is set",
        min_torch=None,
        predicted=None,
        verify=f"TORCH_DISTRIBUTED_DEBUG=DETAIL commlens run -- {launch}",
    )


def _doubts(found: Disagreement) -> tuple[str, ...]:
    doubts = [
        "a rank called a collective that torch refused (wrong arguments) and went on: it then counts one more than"
        " the others",
        "the ranks began to record at different moments",
    ]
    if found.odd:
        doubts.append("the majority is wrong: a branch that most ranks took by mistake")
    if found.shift is not None and found.shift.compared < _SURE:
        doubts.append(
            f"only {found.shift.compared} collective after it could be compared: {name_ranks(found.shift.ranks)} may"
            " have done something else by mistake that looks like the next collective"
        )
    return tuple(doubts)
