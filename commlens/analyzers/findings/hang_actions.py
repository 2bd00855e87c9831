"""What to look at when a job stands still, and when that is the wrong place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from commlens.analyzers.abstentions import name_ranks
from commlens.analyzers.across.fates import ALIVE, GONE, LEFT, QUIET, Fate
from commlens.analyzers.across.roots import ABSENT, CIRCLE, TRANSFER, Root
from commlens.analyzers.findings.naming import name_group
from commlens.analyzers.ranks import RankFacts
from commlens.analyzers.report import Action

_ALIKE = "let every rank of a group issue the same collectives: no branch, early end or exception that only some take"
_KEEP = "keep the rank alive (memory, hardware, host)"
_SHOWN = 4  # ranks for which the command is written out


def hang_action(
    facts: Mapping[int, RankFacts],
    root: Root,
    fates: Sequence[Fate],
    infos: Mapping[int, Mapping[str, Any]],
    launch: str,
) -> Action:
    """The first place to look at; `launch` is the command that started the job."""
    text, change = _look_at(facts, root, fates, infos)
    return Action(
        text=text,
        change=change,
        fix=None,
        risk="none: looking changes nothing",
        min_torch=None,
        predicted=None,
        verify=f"commlens run -- {launch}",
    )


def _look_at(
    facts: Mapping[int, RankFacts], root: Root, fates: Sequence[Fate], infos: Mapping[int, Mapping[str, Any]]
) -> tuple[str, str]:
    who = name_ranks(root.ranks) if root.ranks else ""
    if root.kind == CIRCLE:
        groups = sorted({name_group(stand.matched.communicator) for stand in root.chain})
        return (
            f"See where the code enters {' and '.join(groups)} on {who}: {_stacks(facts, root.ranks, infos)}.",
            "let all ranks enter these groups in the same order",
        )
    if root.kind == TRANSFER:
        waiting = root.stand.ranks
        one_host = len({facts[rank].who.machine for rank in waiting}) == 1
        where = "the processes" if one_host else "the network between the hosts"
        return (
            f"Everyone came, the bytes did not: look at {where}, and at what the ranks stand in: "
            f"{_stacks(facts, waiting, infos)}; `ss -tip` shows connections whose data is not acknowledged.",
            "repair the path that does not carry data",
        )
    if root.kind != ABSENT:
        return f"Add the folder of {who} (commlens report FOLDER FOLDER ...), or look at its process.", _ALIKE
    if fates[0].kind == LEFT:
        return f"Read the last lines of {who}: did it raise, or finish earlier, with less data than the others?", _ALIKE
    if fates[0].kind == GONE:
        return f"See what ended {who}: {_last_words(facts, root.ranks)}.", _KEEP
    if fates[0].kind == QUIET:
        lives = f"See whether {who} lives, and what it does instead: {_stacks(facts, root.ranks, infos)}"
        return f"{lives}. Where there is no such process: {_last_words(facts, root.ranks)}.", f"{_ALIKE}; or {_KEEP}"
    return f"See what {who} does instead while the job stands: {_stacks(facts, root.ranks, infos)}.", _ALIKE


def _last_words(facts: Mapping[int, RankFacts], ranks: Sequence[int]) -> str:
    """Where the end of a process is told."""
    hosts = sorted({facts[rank].who.host or "its host" for rank in ranks})
    return (
        "the exit code that the launcher prints, the rank's own last lines, and"
        f" `dmesg -T | grep -i -E 'killed process|segfault|xid'` on {', '.join(hosts)}"
    )


def _stacks(facts: Mapping[int, RankFacts], ranks: Sequence[int], infos: Mapping[int, Mapping[str, Any]]) -> str:
    """Commands that show where ranks are."""
    commands = []
    for rank in ranks[:_SHOWN]:
        pid = infos.get(rank, {}).get("pid")
        on = f" on {facts[rank].who.host}" if facts[rank].who.host else ""
        commands.append(f"`py-spy dump --pid {pid if pid is not None else f'PID_OF_RANK_{rank}'}`{on} (rank {rank})")
    return ", ".join(commands) + (" and so on" if len(ranks) > _SHOWN else "")


def hang_doubts(root: Root, fates: Sequence[Fate]) -> tuple[str, ...]:
    """When the finding is wrong."""
    doubts = []
    if root.kind == CIRCLE:
        doubts.append("one of these collectives was issued without waiting for it, and its rank stands elsewhere")
    elif root.kind == TRANSFER:
        doubts.append("it is only slow: more bytes than ever before, or a link that lost its speed")
        doubts.append("a rank died after it had issued it")
    elif root.kind != ABSENT:
        doubts.append("the members that were not recorded had come, and the transfer itself stands")
    elif fates[0].kind == LEFT:
        doubts.append("the process ended because of another rank's failure, and that one is the cause")
    else:
        if not root.stand.waits[0].dumped:
            doubts.append("the recorder of that rank gave up (it says so on stderr) while the rank went on")
        if fates[0].kind == GONE:
            doubts.append("the process or its host only stood still as a whole (stopped, swapping, frozen)")
            doubts.append("its own code held the interpreter's lock, so that its recorder could not run")
        elif fates[0].kind == QUIET:
            doubts.append("neither: the whole process or its host stood still (stopped, swapping, frozen)")
        else:
            doubts.append("the rank did something long of its own (checkpoint, evaluation, compilation) and would come")
        if fates[0].kind not in (GONE, QUIET, ALIVE):
            doubts.append("the rank was gone: nothing tells whether its process lived")
    if root.stand.waits[0].dumped:
        doubts.append(
            "the dumps are of different moments of a job that went on: a dump does not say when it was made, only"
            " its file's time, which a copy does not keep"
        )
    if len(root.chain) > 1:
        doubts.append("a rank of the chain does not wait for its collective, which it issued asynchronously")
    return tuple(doubts)
