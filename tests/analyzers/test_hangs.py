"""Hangs and desyncs: the rank that is named is the one at fault, and a healthy run that was killed names nobody."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import MS, START, Collective, collective_columns

import commlens
from commlens.analyzers.across.communicators import find_communicators
from commlens.analyzers.across.matching import match
from commlens.analyzers.across.progress import Progress, RankProgress
from commlens.analyzers.findings.hangs import find_hangs
from commlens.analyzers.findings.naming import seconds, size, step_of
from commlens.analyzers.ranks import rank_facts
from commlens.analyzers.report import Abstention, Finding
from commlens.trace import RankWriter, open_run, write_run_info
from commlens.trace.schema import ALIVE_FILE, MISSING, PHASES

SECOND = 1000 * MS
KINDS = {
    "a": Collective(0, in_bytes=4_000_000, out_bytes=4_000_000),
    "b": Collective(0, in_bytes=2_000_000, out_bytes=2_000_000),
    "i": Collective(0, in_bytes=4_000_000, out_bytes=4_000_000, dtype="int32"),
    "c": Collective(0, op="broadcast", in_bytes=200, out_bytes=200),
    "g": Collective(0, op="all_gather", in_bytes=1000, out_bytes=4000),
    "d": Collective(0, op="barrier", in_bytes=0, out_bytes=0),
}
WORLD = (0, 1, 2, 3)


@dataclass(frozen=True)
class Told:
    """What one rank recorded: rows with their peers, when its recorder made notes, its last sign of life, its end."""

    rows: Sequence[Collective] = ()
    peers: Sequence[int] = ()
    notes: Sequence[int] = ()
    alive: int | None = None
    ended: int | None = None
    groups: dict[str, tuple[int, ...]] = field(default_factory=lambda: {"0": WORLD})
    optimizer_ends: Sequence[int] = ()
    machine: str = "here"
    info: dict[str, Any] = field(default_factory=dict)


def calls(kinds: str, group: str = "0", start: int = START, open_: int = 0, **changed: Any) -> list[Collective]:
    """One collective each 10 ms that takes 2 ms; the last `open_` have no end."""
    rows = []
    for seq, kind in enumerate(kinds):
        issued = start + seq * 10 * MS
        done = MISSING if seq >= len(kinds) - open_ else issued + 2 * MS
        rows.append(replace(KINDS[kind], issued_ns=issued, completed_ns=done, group=group, seq=seq, **changed))
    return rows


def at(seq: int) -> int:
    """When `calls` issues this one."""
    return START + seq * 10 * MS


def write(path: Path, ranks: dict[int, Told], world_size: int = 4) -> Path:
    head = {"run_id": "synthetic", "world_size": world_size}
    write_run_info(path, {**head, "command": ["train.py"], "start_ns": START, "backend": "gloo"})
    for number, told in ranks.items():
        writer = RankWriter(path, number)
        groups = [{"name": name, "ranks": list(members), "size": len(members)} for name, members in told.groups.items()]
        end = {"ns": told.ended, "how": "exit"} if told.ended is not None else None
        own = {"host": told.machine, "boot_id": told.machine, "pid": 100 + number, "groups": groups, "end": end}
        writer.write_info({**head, "rank": number, **own, **told.info})
        if told.rows:
            peers = {"peer": np.array(told.peers, np.int64)} if told.peers else {}
            writer.append("collectives", collective_columns(told.rows) | peers)
        if told.notes:
            notes = np.array(told.notes, np.int64)
            names = ("events", "hook_ns", "flush_ns", "dropped", "written_bytes")
            writer.append("overhead", {"time_ns": notes} | {name: np.zeros_like(notes) for name in names})
        if told.optimizer_ends:
            writer.append("phases", optimizer_steps(told.optimizer_ends))
        writer.close()
        if told.alive is not None:
            (path / f"rank-{number:05d}" / ALIVE_FILE).write_text(f"{told.alive:020d}\n")
    return path


def optimizer_steps(ends: Sequence[int]) -> dict[str, Any]:
    end, none = np.array(ends, np.int64), np.zeros(len(ends), np.int64)
    times = {"start_ns": end - MS, "end_ns": end, "thread": none, "step": none}
    return {"phase": (none + PHASES.index("optimizer"), list(PHASES)), "name": (none, ["SGD"]), **times}


Found = tuple[tuple[Finding, ...], tuple[Progress, ...], tuple[Abstention, ...]]


def find(path: Path, ranks: dict[int, Told], world_size: int = 4) -> Found:
    run = open_run(write(path, ranks, world_size))
    facts = [rank_facts(run.ranks[number]) for number in sorted(run.ranks)]
    matched = [match(each, facts) for each in find_communicators(facts)]
    return find_hangs(facts, matched, {number: rank.info for number, rank in run.ranks.items()})


def only(path: Path, ranks: dict[int, Told], world_size: int = 4) -> Finding:
    """The one finding, whose form is checked."""
    (finding,), _, _ = find(path, ranks, world_size)
    assert (finding.layer, finding.severity, finding.ceiling_ms) == ("host", "critical", None)
    assert finding.evidence
    assert finding.could_be_wrong_if
    assert all(action.text and action.change and action.verify for action in finding.actions)
    assert finding.actions
    json.dumps(asdict(finding), allow_nan=False)
    return finding


def evidence(finding: Finding) -> dict[str, float]:
    return {each.name: each.value for each in finding.evidence}


def all_do(kinds: str, **others: str) -> dict[int, Told]:
    """Four ranks that do `kinds`, but for those named r0, r1, ...; all end."""
    return {rank: Told(calls(others.get(f"r{rank}", kinds)), ended=at(len(kinds)) + MS) for rank in WORLD}


# Ranks that disagree.


@pytest.mark.parametrize(
    ("kind", "did"),
    [
        ("b", "all_reduce of 2.0 MB float32"),
        ("i", "all_reduce of 4.0 MB int32"),
        ("d", "barrier float32"),
        ("g", "all_gather of 4.0 kB float32"),
    ],
)
def test_the_rank_that_does_something_else_is_named(tmp_path: Path, kind: str, did: str) -> None:
    finding = only(tmp_path, all_do("aaaacaaaa", r2=f"aaaaca{kind}aa"))
    assert (finding.id, finding.ranks, finding.confidence, finding.group) == ("desync", (2,), "high", "0")
    where = "rank 2 did something else than the others at sequence 6 of group 0 (desc 0)"
    assert finding.title == f"{where}: rank 2: {did}; ranks 0-1, 3: all_reduce of 4.0 MB float32"
    assert evidence(finding)["sequence number"] == 6
    assert evidence(finding)["collectives that disagree"] == 1
    assert evidence(finding)["time since the first collective of rank 0"] == 0.06
    assert finding.actions[0].text.startswith("Look at what rank 2 does at collective 6 of the group: ")


def test_the_step_is_told_where_it_is_known(tmp_path: Path) -> None:
    ends = [at(seq) - 2 * MS for seq in (2, 4, 6, 8)]
    ranks = {rank: replace(told, optimizer_ends=ends) for rank, told in all_do("acacacac", r1="acacaccc").items()}
    finding = only(tmp_path, ranks)
    assert (finding.steps, evidence(finding)["step"]) == ((3,), 3)
    assert finding.title.endswith("(step 3)")
    assert finding.actions[0].text.startswith("Look at what rank 1 does at step 3: ")


def test_another_root_is_a_disagreement(tmp_path: Path) -> None:
    peers = {rank: [0] * 700 + [3 if rank == 1 else 0] * 2 for rank in WORLD}
    ranks = {rank: Told(calls("a" * 600 + "c" * 102), peers=own, ended=at(702)) for rank, own in peers.items()}
    finding = only(tmp_path, ranks)
    assert (finding.ranks, evidence(finding)["sequence number"]) == ((1,), 700)
    assert "rank 1: broadcast of 200 B float32 with root 3; ranks 0, 2-3: broadcast of 200 B float32 with root 0" in (
        finding.title
    )


@pytest.mark.parametrize(("odd", "members"), [((1,), (0, 1)), ((1, 3), WORLD)])
def test_without_a_majority_nobody_is_accused(tmp_path: Path, odd: tuple[int, ...], members: tuple[int, ...]) -> None:
    groups = {"0": members}
    ranks = {rank: Told(calls("aab" if rank in odd else "aaa"), ended=at(4), groups=groups) for rank in members}
    finding = only(tmp_path, ranks, len(members))
    assert (finding.ranks, finding.confidence) == (members, "medium")
    assert finding.title.startswith("the ranks disagree at sequence 2 of group 0 (desc 0), and no majority tells")


def test_sizes_that_need_not_be_alike_are_no_disagreement(tmp_path: Path) -> None:
    ranks = {}
    for rank in WORLD:
        rows = [replace(row, op=op) for row, op in zip(calls("ggg"), OWN_SIZES, strict=True)]
        ranks[rank] = Told([replace(row, in_bytes=1000 + 8 * rank) for row in rows], ended=at(9))
    assert find(tmp_path, ranks)[0] == ()


OWN_SIZES = ("all_gather", "all_to_all", "gather")


# Ranks that skip one, or do one too many.


def test_a_skip_that_the_following_collectives_show(tmp_path: Path) -> None:
    finding = only(tmp_path, all_do("abcabcabcabc", r2="abcabcbcabc"))
    assert (finding.id, finding.ranks, finding.confidence) == ("desync", (2,), "high")
    assert finding.title == (
        "rank 2 skipped all_reduce of 4.0 MB float32, sequence 6 of group 0 (desc 0);"
        " what follows is what the others do one collective later"
    )
    assert evidence(finding)["collectives that fit when moved"] == 5


@pytest.mark.parametrize(
    ("usual", "odd", "title"),
    [
        ("abcabcabcabc", "abcabcgabcabc", "issued all_gather of 4.0 kB float32 that the others did not, sequence 6"),
        (
            "abcabcabcabc",
            "abcabcaabcabc",
            "issued all_reduce of 4.0 MB float32 that the others did not, one of",
        ),
        ("abcabcabcabc", "abcabccabc", "skipped all_reduce of 4.0 MB float32 and 1 more, sequence 6"),
        ("abaaabcabaaabc", "abaabcabaaabc", "skipped all_reduce of 4.0 MB float32, one of sequence 2-4 (all alike)"),
        ("aabcabcabc", "abcabcabc", "skipped all_reduce of 4.0 MB float32, one of sequence 0-1 (all alike)"),
    ],
    ids=["extra", "extra alike", "two", "alike", "from the beginning"],
)
def test_other_shifts(tmp_path: Path, usual: str, odd: str, title: str) -> None:
    finding = only(tmp_path, all_do(usual, r1=odd))
    assert finding.ranks == (1,)
    assert finding.title.startswith(f"rank 1 {title}")


def test_a_skip_at_which_everyone_stands_is_told_from_what_usually_follows(tmp_path: Path) -> None:
    # A disagreement stops the job at once: what the others would have done next is known from the steps before.
    ranks = {rank: Told(calls("abcgabcgabg" if rank == 2 else "abcgabcgabc", open_=1)) for rank in WORLD}
    finding = only(tmp_path, ranks)
    assert (finding.ranks, finding.confidence) == ((2,), "medium")
    assert finding.title.startswith("rank 2 seems to have skipped broadcast of 200 B float32, sequence 10 of group 0")
    assert any("only 1 collective after it could be compared" in doubt for doubt in finding.could_be_wrong_if)


def test_what_usually_follows_is_told_from_more_than_the_last_collective(tmp_path: Path) -> None:
    """After a comes b where c was before it, and c where b was."""
    ranks = {rank: Told(calls("cabacabac" + ("b" if rank == 2 else "a"), open_=1)) for rank in WORLD}
    finding = only(tmp_path, ranks)
    assert finding.title.startswith("rank 2 seems to have skipped all_reduce of 4.0 MB float32, sequence 9 of group 0")


def test_a_rank_that_skipped_and_ran_far_ahead(tmp_path: Path) -> None:
    """More than can be foretold of the others, who stand: only what can be is compared."""
    ahead = [replace(row, timing="enqueue_only") for row in calls("abcgabcgabg" + "abcg" * 3, open_=13)]
    ranks = {rank: Told(ahead if rank == 2 else calls("abcgabcgabc", open_=1)) for rank in WORLD}
    finding = only(tmp_path, ranks)
    assert finding.title.startswith("rank 2 skipped broadcast of 200 B float32, sequence 10 of group 0")
    assert evidence(finding)["collectives that fit when moved"] == 4


def test_of_two_ranks_either_may_have_skipped(tmp_path: Path) -> None:
    ranks = {rank: told for rank, told in all_do("abcabcabcabc", r1="abcabcbcabc").items() if rank < 2}
    ranks = {rank: replace(told, groups={"0": (0, 1)}) for rank, told in ranks.items()}
    finding = only(tmp_path, ranks, 2)
    assert finding.ranks == (0, 1)
    assert finding.title.startswith("rank 1 skipped all_reduce of 4.0 MB float32, or rank 0 issued it on top: sequence")


def test_a_disagreement_explains_why_everyone_stands(tmp_path: Path) -> None:
    for name, last in (("at it", ("acd", "acb")), ("after it", ("acda", "acb"))):
        kinds = {rank: "ac" * 9 + last[rank == 2] for rank in WORLD}
        ranks = {rank: Told(calls(k, open_=1), ended=at(len(k)) + 60 * SECOND) for rank, k in kinds.items()}
        assert only(tmp_path / name, ranks).id == "desync"


def test_a_disagreement_long_before_does_not_explain_a_hang(tmp_path: Path) -> None:
    """Another dtype stops nobody: the sums are wrong, and the job goes on."""
    ranks = {0: waiting(), 1: waiting(), 2: Told(calls("aaaai" + "a" * 14), ended=at(20)), 3: waiting()}
    desync, hang = find(tmp_path, ranks)[0]
    assert (desync.id, desync.ranks, hang.id, hang.ranks) == ("desync", (2,), "hang", (2,))


# Ranks that do not come.


def waiting(kinds: str = "a" * 20, stood: int = 60 * SECOND, **told: Any) -> Told:
    """A rank in its last collective; its recorder notes each second that it lives."""
    since = at(len(kinds) - 1)
    notes = list(range(since + SECOND // 2, since + stood + 1, SECOND))
    return Told(calls(kinds, open_=1), **({"notes": notes} | told))


def test_a_rank_that_is_gone(tmp_path: Path) -> None:
    """By how much its recording stops earlier, whatever its host's clock says."""
    late = 7 * SECOND
    gone = Told(calls("a" * 19, start=START + late), notes=[at(19) + late], alive=at(19) + late, machine="there")
    finding = only(tmp_path, {0: waiting(), 1: waiting(), 2: gone, 3: waiting()})
    assert (finding.id, finding.ranks, finding.confidence) == ("hang", (2,), "medium")
    assert finding.title == (
        "rank 2 was gone (the recording stops 59.5 s before that of rank 0): ranks 0-1, 3 waited 59.5 s"
        " in all_reduce of 4.0 MB float32 (sequence 19 of group 0 (desc 0))"
    )
    told = evidence(finding)
    assert (told["sequence number"], told["number that rank 2 had issued at least"], told["ranks that wait"]) == (
        19,
        18,
        3,
    )
    assert told["rank 0 stood in it for"] == 59.5
    assert told["the longest before on rank 0"] == 0.002
    assert told["recording of rank 2 stops earlier by"] == 59.5
    assert finding.actions[0].text.startswith("See what ended rank 2: ")
    assert finding.actions[0].text.endswith("on there.")


def test_a_rank_whose_last_second_is_lost_is_gone(tmp_path: Path) -> None:
    """What needs everyone has ended on the others: it had issued more than it could write."""
    ended = at(19) + 60 * SECOND
    ranks = {rank: waiting(notes=(), ended=ended) for rank in WORLD} | {2: Told(calls("a" * 10))}
    finding = only(tmp_path, ranks)
    assert finding.ranks == (2,)
    assert finding.title.startswith("rank 2 was gone (the recording stops 60.1 s before")
    assert evidence(finding)["number that rank 2 had issued at least"] == 18


def test_what_a_rank_was_in_when_it_last_wrote_is_not_what_it_stands_in(tmp_path: Path) -> None:
    ranks = {rank: waiting() for rank in WORLD} | {2: Told(calls("a" * 10, open_=2), notes=[at(9)])}
    finding = only(tmp_path, ranks)
    assert finding.ranks == (2,)
    assert finding.title.startswith("rank 2 was gone")


def test_the_step_of_a_hang(tmp_path: Path) -> None:
    ends = [at(seq) - MS for seq in (4, 8, 12, 16)]
    ranks = {rank: waiting(optimizer_ends=ends) for rank in WORLD} | {2: Told(calls("a" * 19), ended=at(20))}
    finding = only(tmp_path / "told", ranks)
    assert (finding.steps, evidence(finding)["step"]) == ((4,), 4)
    finding = only(tmp_path / "not told", {rank: replace(told, optimizer_ends=()) for rank, told in ranks.items()})
    assert (finding.steps, "step" in evidence(finding)) == ((), False)


def test_several_that_are_gone_are_one_finding(tmp_path: Path) -> None:
    ranks = {0: waiting(), 1: Told(calls("a" * 19), notes=[at(19)]), 2: waiting(), 3: Told(calls("a" * 19))}
    finding = only(tmp_path, ranks)
    assert finding.ranks == (1, 3)
    assert finding.title.startswith("ranks 1, 3 were gone")


def test_a_rank_that_lives_but_does_not_come(tmp_path: Path) -> None:
    elsewhere = replace(waiting(), rows=calls("a" * 19))
    finding = only(tmp_path, {0: waiting(), 1: waiting(), 2: elsewhere, 3: waiting()})
    assert finding.ranks == (2,)
    assert finding.title.startswith("rank 2 was alive but did not come: ranks 0-1, 3 waited 59.5 s in")
    assert finding.actions[0].text == (
        "See what rank 2 does instead while the job stands: `py-spy dump --pid 102` on here (rank 2)."
    )


def test_a_quiet_rank_with_signs_of_life_is_alive(tmp_path: Path) -> None:
    """It stands in its own code: no collective of it is under way."""
    busy = Told(calls("a" * 19), notes=[at(19)], alive=at(19) + 55 * SECOND)
    finding = only(tmp_path, {0: waiting(), 1: waiting(), 2: busy, 3: waiting()})
    assert finding.title.startswith("rank 2 was alive but did not come: ranks 0-1, 3 waited 59.5 s in")
    assert "py-spy dump --pid 102" in finding.actions[0].text
    assert "dmesg" not in finding.actions[0].text


def test_a_quiet_rank_of_an_older_recorder_may_be_busy(tmp_path: Path) -> None:
    """It left no signs of life while it issued nothing."""
    finding = only(tmp_path, {rank: waiting() for rank in WORLD} | {2: Told(calls("a" * 19), notes=[at(19)])})
    assert finding.title.startswith("rank 2 was gone, or busy in its own code (the recording stops 59.5 s before that")
    text = finding.actions[0].text
    assert text.index("py-spy dump --pid 102") < text.index("Where there is no such process: the exit code") < len(text)


def test_without_signs_of_life_neither_is_claimed(tmp_path: Path) -> None:
    ended = at(19) + 11 * SECOND
    ranks = {rank: waiting(notes=[at(19) + SECOND // 2], ended=ended) for rank in WORLD}
    finding = only(tmp_path, ranks | {2: Told(calls("a" * 19), notes=[at(19)])})
    assert (finding.ranks, finding.title.split(":")[0]) == ((2,), "rank 2 did not come")
    assert any("was gone" in doubt for doubt in finding.could_be_wrong_if)


# Exceptions that ended the job.


def raised(error: str, at_ns: int, kinds: str = "aaa", open_: int = 0) -> Told:
    end = {"ns": at_ns, "left_ns": at_ns - MS, "how": "exception", "error": error}
    return Told(calls(kinds, open_=open_), info={"end": end})


def test_an_exception_ended_the_job_and_the_first_to_raise_is_named(tmp_path: Path) -> None:
    late, lost = at(3) + 500 * MS, "RuntimeError: Connection closed by peer"
    ranks = {rank: raised(f"{lost} {rank}", late + rank, "aaaa", 1) for rank in (0, 2)}
    ranks |= {1: raised("ValueError: planted", at(3)), 3: Told(calls("aaaa", open_=1))}
    (finding,), _, abstentions = find(tmp_path, ranks)
    assert (finding.id, finding.ranks, finding.severity, abstentions) == ("exception", (1,), "critical", ())
    assert finding.title == (
        "rank 1 ended by ValueError: planted; after it ranks 0, 2 by RuntimeError; rank 3 wrote no end; "
        "ranks 0, 2-3 were in all_reduce of 4.0 MB float32 (sequence 3 of group 0 (desc 0))"
    )
    assert evidence(finding)["from there to the error of rank 0"] == 0.5
    assert (finding.confidence, evidence(finding)["ranks without an end"]) == ("medium", 1)


def test_all_ranks_raised_before_any_step(tmp_path: Path) -> None:
    ranks = {rank: raised("KeyError: 'data'", at(1), "a") for rank in WORLD}
    (finding,), _, abstentions = find(tmp_path, ranks)
    assert (finding.title, finding.ranks, abstentions) == ("ranks 0-3 ended by KeyError: 'data'", WORLD, ())
    assert finding.confidence == "high"


def test_a_rank_that_left_before_the_first_error_is_named(tmp_path: Path) -> None:
    ranks = {0: raised("RuntimeError: lost", at(9)), 1: Told(calls("aaa"), ended=at(3))}
    (finding,), _, _ = find(tmp_path, ranks, 2)
    assert "rank 1 had left before" in finding.title


def test_who_pressed_ctrl_c_knows_it(tmp_path: Path) -> None:
    ranks = {rank: raised("RuntimeError: lost", at(9)) for rank in WORLD} | {2: raised("KeyboardInterrupt", at(3))}
    assert find(tmp_path, ranks) == ((), find(tmp_path / "again", ranks)[1], ())


def test_who_left_a_hang_by_an_exception_says_which(tmp_path: Path) -> None:
    ranks = {rank: Told(calls("aaaa", open_=1), ended=at(3) + 60 * SECOND) for rank in (0, 2, 3)}
    finding = only(tmp_path, ranks | {1: raised("ValueError: planted", at(3))})
    assert finding.title.startswith("rank 1 had left (the process ended by ValueError: planted): ranks 0, 2-3 waited")


def test_a_rank_whose_recorder_gave_up_is_not_called_gone(tmp_path: Path) -> None:
    ranks = {rank: Told(calls("aaaa", open_=1), ended=at(3) + 60 * SECOND) for rank in (0, 2, 3)}
    told = Told(calls("aaa"), info={"gave_up": {"error": "OSError: no space"}})
    assert only(tmp_path, ranks | {1: told}).title.startswith("rank 1 did not come: ranks 0, 2-3 waited")


def test_a_skip_among_alike_collectives_shows_as_a_rank_that_left_early(tmp_path: Path) -> None:
    left = Told(calls("a" * 19), ended=at(20))
    finding = only(tmp_path, {0: waiting(), 1: waiting(), 2: left, 3: waiting()})
    assert (finding.id, finding.ranks, finding.confidence) == ("hang", (2,), "high")
    assert finding.title.startswith("rank 2 had left (the process ended): ranks 0-1, 3 waited")
    assert finding.actions[0].text.startswith("Read the last lines of rank 2")


def test_a_member_without_a_recording(tmp_path: Path) -> None:
    finding = only(tmp_path, {rank: waiting() for rank in (0, 1, 2)})
    assert (finding.ranks, finding.confidence) == ((3,), "low")
    assert finding.title.startswith("ranks 0-2 waited 59.5 s in all_reduce of 4.0 MB float32 (sequence 19 of group 0")
    assert finding.title.endswith("for rank 3, of which nothing was recorded")
    assert finding.actions[0].text.startswith("Add the folder of rank 3")


def test_a_transfer_that_everyone_waits_for(tmp_path: Path) -> None:
    six = {"0": tuple(range(6))}
    finding = only(tmp_path, {rank: waiting(machine=f"host{rank}", groups=six) for rank in range(6)}, 6)
    assert (finding.ranks, finding.confidence) == ((), "medium")
    assert finding.title.endswith("did not end in 59.5 s, although every rank of the group issued it")
    assert "network between the hosts" in finding.actions[0].text
    assert "--pid 103` on host3 (rank 3) and so on" in finding.actions[0].text
    assert "--pid 104" not in finding.actions[0].text


TWO = {"0": WORLD, "1": (0, 1), "2": (0, 1)}


def test_groups_entered_in_opposite_order(tmp_path: Path) -> None:
    ranks = {}
    for rank, group in ((0, "1"), (1, "2")):
        stand = replace(KINDS["b"], issued_ns=at(20), group=group, seq=0)
        ranks[rank] = Told([*calls("a" * 20), stand], ended=at(20) + 30 * SECOND, groups=TWO)
    finding = only(tmp_path, ranks, 2)
    assert (finding.id, finding.ranks, finding.confidence) == ("hang", (0, 1), "high")
    assert finding.title == (
        "deadlock: rank 0 waits for rank 1 in all_reduce of 2.0 MB float32 (sequence 0 of group 1 (desc 1)),"
        " rank 1 waits for rank 0 in all_reduce of 2.0 MB float32 (sequence 0 of group 2 (desc 2))"
    )
    assert "same order" in finding.actions[0].change


def test_a_chain_is_followed_to_its_root(tmp_path: Path) -> None:
    """Rank 3 waits for 2 in the tensor-parallel group, 2 for 0 in the data-parallel one, 0 is gone, 1 waits for 0."""
    groups = {"0": WORLD, "tp": (2, 3), "dp": (0, 2), "tp0": (0, 1)}
    ranks = {0: Told(calls("a" * 20), notes=[at(20)], alive=at(20), groups=groups)}
    for rank, group in ((1, "tp0"), (2, "dp"), (3, "tp")):
        stand = replace(KINDS["b"], issued_ns=at(20), group=group, seq=0)
        notes = [at(20) + k * SECOND for k in range(1, 40 + rank)]
        ranks[rank] = Told([*calls("a" * 20), stand], notes=notes, groups=groups)
    finding = only(tmp_path, ranks)
    assert finding.ranks == (0,)
    assert finding.title == (
        "rank 0 was gone (the recording stops 41.0 s before that of rank 2): rank 2 waited 41.0 s in all_reduce of"
        " 2.0 MB float32 (sequence 0 of group dp (desc dp)); rank 3 waits for rank 2 in all_reduce of 2.0 MB float32"
        " (sequence 0 of group tp (desc tp))"
    )
    assert evidence(finding)["ranks that wait"] == 3


def messages(count: int, op: str, open_: int = 0) -> list[Collective]:
    return [replace(row, op=op, timing="wait") for row in calls("b" * count, open_=open_)]


@pytest.mark.parametrize(("sender", "receiver", "absent"), [(8, 9, 0), (9, 8, 1)], ids=["no send", "no receive"])
def test_a_message_without_its_counterpart(tmp_path: Path, sender: int, receiver: int, absent: int) -> None:
    groups = {"0": (0, 1)}
    ended = at(9) + 60 * SECOND
    ranks = {
        0: Told(messages(sender, "send", sender > 8), [1] * sender, groups=groups),
        1: Told(messages(receiver, "recv", receiver > 8), [0] * receiver, groups=groups),
    }
    ranks[1 - absent] = replace(ranks[1 - absent], ended=ended)
    finding = only(tmp_path, ranks, 2)
    assert finding.ranks == (absent,)
    assert "(sequence 8 of the messages from rank 0 to rank 1)" in finding.title


def test_receives_from_anyone_accuse_nobody(tmp_path: Path) -> None:
    groups, ended = {"0": (0, 1)}, at(9) + 60 * SECOND
    sends = [replace(row, completed_ns=MISSING) for row in messages(9, "send")]
    ranks = {
        0: Told(sends, [1] * 9, groups=groups, ended=ended),
        1: Told(messages(9, "recv"), [MISSING] * 9, groups=groups, ended=ended),
    }
    assert find(tmp_path, ranks, 2)[0] == ()


@given(
    absent=st.sets(st.integers(0, 3), min_size=1, max_size=3),
    lost=st.integers(0, 25),
    clocks=st.lists(st.integers(-100 * SECOND, 100 * SECOND), min_size=4, max_size=4),
    stood=st.integers(11, 2000),
)
@settings(deadline=None, max_examples=30)
def test_who_does_not_come_is_named_whatever_the_clocks_say(
    tmp_path_factory: pytest.TempPathFactory, absent: set[int], lost: int, clocks: list[int], stood: int
) -> None:
    ranks = {}
    for rank, clock in enumerate(clocks):
        came = rank not in absent
        rows = calls("ab" * 20 + "c", start=START + clock, open_=1)[: None if came else 40 - lost]
        notes = [rows[-1].issued_ns + SECOND // 2 + k * SECOND for k in range(stood if came else 1)]
        ranks[rank] = Told(rows, notes=notes, alive=None if came else notes[0], machine=f"host{rank}")
    finding = only(tmp_path_factory.mktemp("run"), ranks)
    assert finding.ranks == tuple(sorted(absent))
    assert " gone (the recording stops " in finding.title


# What is no hang.


@given(
    steps=st.integers(2, 40),
    pattern=st.text("abcg", min_size=1, max_size=6),
    cuts=st.lists(st.integers(0, 100), min_size=4, max_size=4),
    open_=st.lists(st.integers(0, 3), min_size=4, max_size=4),
    later=st.lists(st.integers(0, SECOND), min_size=4, max_size=4),
)
@settings(deadline=None, max_examples=30)
def test_a_healthy_run_that_was_killed_names_nobody(
    tmp_path_factory: pytest.TempPathFactory,
    steps: int,
    pattern: str,
    cuts: list[int],
    open_: list[int],
    later: list[int],
) -> None:
    """Each rank lost up to a second, and is in up to three collectives."""
    kinds = pattern * steps
    ranks = {}
    for rank in WORLD:
        kept = max(len(kinds) - cuts[rank], 0)
        rows = calls(kinds[:kept], open_=min(open_[rank], kept))
        ranks[rank] = Told(rows, notes=[at(kept) + later[rank]])
    findings, _, (abstention,) = find(tmp_path_factory.mktemp("run"), ranks)
    assert findings == ()
    assert abstention.analysis == "hang"
    assert "ranks 0-3 have no end (killed, or still running)" in abstention.reason


def test_a_run_that_ended_says_nothing(tmp_path: Path) -> None:
    assert find(tmp_path, all_do("abc" * 9))[::2] == ((), ())


def test_ranks_that_a_keystroke_ended_are_told_but_no_hang(tmp_path: Path) -> None:
    """Rank 0 left between two collectives; the others' next one failed when its connections closed."""
    ranks = {rank: waiting(notes=(), ended=at(19) + 8 * SECOND) for rank in WORLD}
    findings, _, (abstention,) = find(tmp_path, ranks | {0: Told(calls("a" * 19), ended=at(19))})
    assert findings == ()
    assert abstention.reason == (
        "ranks 1-3 were in all_reduce of 4.0 MB float32 (sequence 19 of group 0 (desc 0)) for 8.0 s when the"
        " recording stops (up to 2 ms before): too short to call it a hang; rank 0 ended without it"
    )
    assert "rank 0" in abstention.needs


def test_of_several_collectives_the_one_that_someone_did_not_issue_is_told(tmp_path: Path) -> None:
    groups = {"0": WORLD, "1": (0, 1)}
    pair = {rank: replace(KINDS["b"], issued_ns=at(18), group="1", seq=0) for rank in (0, 1)}
    ranks = {rank: Told([*calls("a" * 18), pair[rank]], groups=groups, notes=[at(90)]) for rank in (0, 1)}
    ranks |= {2: Told(calls("a" * 19, open_=1), groups=groups, notes=[at(80)]), 3: Told(calls("a" * 18), groups=groups)}
    _, _, (abstention,) = find(tmp_path, ranks)
    assert "rank 2 was in all_reduce of 4.0 MB float32 (sequence 18 of group 0" in abstention.reason


@pytest.mark.parametrize(("stood", "hangs"), [(20, False), (100, True)])
def test_what_is_long_is_measured_against_the_run_itself(tmp_path: Path, stood: int, hangs: bool) -> None:
    """A job whose collectives take up to ten seconds stands still after thirty."""
    slow = [replace(row, completed_ns=row.issued_ns + 10 * SECOND) for row in calls("a" * 19)]
    rows = [*slow, replace(KINDS["a"], issued_ns=at(2000), seq=19)]
    ranks = {rank: Told(rows, ended=at(2000) + stood * SECOND) for rank in WORLD} | {1: Told(slow, ended=at(2001))}
    assert bool(find(tmp_path, ranks)[0]) == hangs


@pytest.mark.parametrize(("stood", "hangs"), [(25, False), (35, True)])
def test_without_experience_half_a_minute_is_long(tmp_path: Path, stood: int, hangs: bool) -> None:
    ranks = {rank: waiting("aa", stood * SECOND) for rank in WORLD} | {1: Told(calls("a"))}
    assert bool(find(tmp_path, ranks)[0]) == hangs


def on_device(kinds: str, active: int = 0) -> list[Collective]:
    """Rows whose end nobody sees; the host goes on in another group for `active` seconds."""
    rows = [replace(row, completed_ns=MISSING, timing="enqueue_only") for row in calls(kinds)]
    more = calls("b" * (10 * active), group="1", start=at(len(kinds)))
    return rows + [replace(row, completed_ns=MISSING, timing="enqueue_only") for row in more]


def test_a_host_that_runs_ahead_of_its_device_does_not_hang(tmp_path: Path) -> None:
    groups = {"0": WORLD, "1": (0,)}
    ranks = {rank: Told(on_device("a" * 19), groups=groups, notes=[at(20)]) for rank in WORLD}
    busy = Told(on_device("a" * 20, 50), groups=groups, notes=[at(520)])
    assert find(tmp_path / "busy", ranks | {0: busy})[0] == ()
    silent = Told(on_device("a" * 20), groups=groups, notes=[at(20), at(520), at(1020)])
    assert only(tmp_path / "silent", ranks | {0: silent}).ranks == (1, 2, 3)


def test_imported_files_do_not_tell(tmp_path: Path) -> None:
    ranks = {rank: waiting(info={"imported": True}) for rank in WORLD} | {1: Told(calls("a"), info={"imported": True})}
    findings, progress, (abstention,) = find(tmp_path, ranks)
    assert (findings, len(progress)) == ((), 1)
    assert abstention.reason == "the imported files do not tell how the ranks ended"


def test_nothing_recorded_at_all(tmp_path: Path) -> None:
    assert find(tmp_path, {0: Told(ended=START)}, 1) == ((), (), ())


# Facts, and whatever may be missing.


def test_progress_of_each_member(tmp_path: Path) -> None:
    ranks = {0: waiting("abc"), 1: Told(calls("ab")), 2: Told()}
    _, (progress,), _ = find(tmp_path, ranks)
    assert (progress.group, progress.members, progress.behind) == ("0", WORLD, (1, 2))
    assert progress.per_rank == (
        RankProgress(0, True, 2, 2, 1, "broadcast"),
        RankProgress(1, True, 1, 1, 1, "all_reduce"),
        RankProgress(2, True),
        RankProgress(3, False),
    )


@pytest.mark.parametrize("missing", WORLD)
def test_a_rank_that_is_missing_breaks_nothing(tmp_path: Path, missing: int) -> None:
    cases = {
        "hang": {0: waiting(), 1: Told(calls("a" * 19), notes=[at(19)]), 2: waiting(), 3: waiting()},
        "skip": all_do("abcabcabcabc", r2="abcabcbcabc"),
        "ended": all_do("abc" * 9),
    }
    for name, ranks in cases.items():
        del ranks[missing]
        findings, _, _ = find(tmp_path / name, ranks)
        assert not any(0 in each.ranks for each in findings if missing != 0)


# Words.


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (1_500_000, "1.5 MB"), (10**8, "100 MB"), (2 * 10**16, "20000 TB")],
)
def test_sizes_in_words(count: int, text: str) -> None:
    assert size(count) == text


@pytest.mark.parametrize(("value", "text"), [(0.004, "4 ms"), (0.1, "0.1 s"), (12.34, "12.3 s"), (1800.0, "1800 s")])
def test_seconds_in_words(value: float, text: str) -> None:
    assert seconds(value) == text


def test_the_step_of_a_collective(tmp_path: Path) -> None:
    """From one end of the optimizer's step to the next; the first two, which are never analysed, have no number."""
    told = Told(calls("a" * 12), optimizer_ends=[at(seq) for seq in (2, 4, 6, 8)])
    facts = rank_facts(open_run(write(tmp_path, {0: told}, 1)).ranks[0])
    assert [step_of(facts, row) for row in range(12)] == [None] * 4 + [2, 2, 3, 3, 4, 4, 4, 4]


def test_what_is_to_be_run_again_is_the_jobs_own_command(tmp_path: Path) -> None:
    """The whole analysis knows it."""
    gone = Told(calls("a" * 19), notes=[at(19)], alive=at(19))
    wrong = all_do("abcabcabcabc", r2="abcabcbcabc")
    for name, ranks, before in (
        ("hang", {0: waiting(), 1: waiting(), 2: gone, 3: waiting()}, ""),
        ("desync", wrong, "TORCH_DISTRIBUTED_DEBUG=DETAIL "),
    ):
        finding = commlens.analyze(open_run(write(tmp_path / name, ranks))).findings[0]
        assert (finding.id, finding.actions[0].verify) == (name, f"{before}commlens run -- python train.py")
