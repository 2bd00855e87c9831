"""COMMLENS_STEPS on the flush thread: all of the chosen steps, and of the others what they and a hang rest on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from commlens.profiler.chosen_steps import LEAD, STANDS_NS, TAIL, ChosenSteps
from commlens.profiler.slots import ENQUEUE_ONLY, ROW, Rows
from commlens.trace.sampling import parse_choice
from commlens.trace.schema import OPS, TIMINGS

MS = 1_000_000
STEP_NS = 10 * MS
EACH = 20  # collectives of a step
HOST = TIMINGS.index("host")


def row(event: int, step: int, issued_ns: int, completed_ns: int = -1, **more: Any) -> Rows:
    found = np.zeros(1, ROW)
    found[["started_ns", "waited_ns", "blocked_ns", "peer", "bucket"]] = (-1,) * 5
    told = {"event": event, "seq": event, "step": step, "issued_ns": issued_ns, "completed_ns": completed_ns}
    for name, value in {"timing": HOST, **told, **more}.items():
        found[name] = value
    return found


class Rank:
    """A rank whose collectives end 1 ms after they are issued, and what it wrote of them."""

    def __init__(self, choice: str, windows: Sequence[tuple[int, int]] = ()) -> None:
        self.chosen = ChosenSteps(parse_choice(choice), lambda: windows)
        self.rows: list[Rows] = []

    def begin(self, step: int) -> None:
        if self.chosen.include(step):
            self.chosen.begin(step, step * STEP_NS)

    def flush(self, rows: Sequence[Rows], now_ns: int, ended: bool = False) -> list[int]:
        """The events that are written."""
        drained = np.concatenate([np.zeros(0, ROW), *rows])
        written = self.chosen.written(drained, self.chosen.begun, now_ns, ended)
        self.rows.append(written)
        return sorted(written["event"].tolist())

    def run(self, steps: int, flush_each: int, ended: bool = True) -> None:
        """Each step issues `EACH` collectives; a flush comes after so many of them."""
        drained: list[Rows] = []
        for event in range(steps * EACH):
            step, place = divmod(event, EACH)
            if not place:
                self.begin(step)
            at_ns = step * STEP_NS + place * MS // 10
            drained.append(row(event, step, at_ns, at_ns + MS))
            if event % flush_each == flush_each - 1:
                self.flush(drained, at_ns)
                drained = []
        self.flush(drained, steps * STEP_NS, ended)

    @property
    def written(self) -> set[int]:
        return {int(event) for rows in self.rows for event in rows["event"]}


def events(*steps: int) -> set[int]:
    return {event for step in steps for event in range(step * EACH, (step + 1) * EACH)}


def lead(*steps: int) -> set[int]:
    return {event for step in steps for event in range(step * EACH - LEAD, step * EACH)}


def test_without_a_choice_all_is_written() -> None:
    everything = ChosenSteps(None, list)
    rows = np.concatenate([row(event, 7, 0) for event in range(5)])
    assert everything.include(10**9)
    assert everything.written(rows, everything.begun, 1) is rows


@pytest.mark.parametrize("flush_each", [1, 7, 33, 10_000])
def test_chosen_steps_are_whole_and_ranks_agree_whenever_they_flush(flush_each: int) -> None:
    rank = Rank("::10")
    rank.run(steps=35, flush_each=flush_each)
    assert rank.written == events(0, 10, 20, 30) | lead(10, 20, 30) | {35 * EACH - 1}


def test_a_single_step_is_written_whole() -> None:
    rank = Rank("5")
    rank.run(steps=12, flush_each=9, ended=False)
    assert rank.written == events(5) | lead(5)


def test_steps_of_windows_are_written_beside_the_chosen_ones() -> None:
    rank = Rank("::30", windows=[(11, 14)])
    rank.run(steps=25, flush_each=50, ended=False)
    assert rank.written == events(0, 11, 12, 13) | lead(11)


@pytest.mark.parametrize(
    ("ends", "kept"),
    [
        ({"completed_ns": 5 * STEP_NS + 1}, True),
        ({"completed_ns": 4 * STEP_NS, "waited_ns": 4 * STEP_NS, "blocked_ns": STEP_NS + 1}, True),
        ({"completed_ns": 5 * STEP_NS - 1}, False),
        ({"completed_ns": 4 * STEP_NS, "waited_ns": 4 * STEP_NS, "blocked_ns": 9}, False),
        ({"timing": ENQUEUE_ONLY}, False),
    ],
)
def test_what_is_under_way_when_a_chosen_step_begins_is_written(ends: dict[str, int], kept: bool) -> None:
    """A chosen step is analysed from its beginning: what the thread stands still for there is known."""
    for drained_before in (False, True):
        rank = Rank("5")
        early = [row(0, 3, 3 * STEP_NS, **({"timing": ENQUEUE_ONLY} if "timing" in ends else {}))]
        others = [row(event, 3, 3 * STEP_NS, 3 * STEP_NS + 1) for event in range(1, 2 * TAIL)]
        assert rank.flush(early if drained_before else [], 3 * STEP_NS) == []
        rank.flush(others, 4 * STEP_NS)
        rank.begin(5)
        rank.flush([row(0, 3, 3 * STEP_NS, **ends)], 6 * STEP_NS)
        assert (0 in rank.written) == kept


def test_what_is_still_under_way_is_written_twice() -> None:
    rank = Rank("5")
    rank.flush([row(0, 3, 3 * STEP_NS)], 3 * STEP_NS)
    rank.begin(5)
    assert rank.flush([], 6 * STEP_NS) == [0]
    assert rank.flush([], 7 * STEP_NS) == []
    assert rank.flush([row(0, 3, 3 * STEP_NS, 8 * STEP_NS)], 8 * STEP_NS) == [0]  # it takes the place of the first
    assert rank.rows[-1]["completed_ns"].tolist() == [8 * STEP_NS]


def test_where_a_job_stands_is_written() -> None:
    """Its open collectives, of which the first says what it stands in, and before them the last that ended."""
    rank = Rank("::1000")
    done = [row(event, 3, event, event + 1) for event in range(100)]
    stuck = [row(event, 3, event) for event in range(100, 200)]
    assert rank.flush([*done, *stuck], 300) == []
    assert rank.flush([], STANDS_NS + 99) == []
    assert rank.flush([], STANDS_NS + 199) == list(range(100, 200))
    assert rank.flush([], 2 * STANDS_NS) == []


def test_a_group_that_is_left_behind_is_written_while_others_go_on() -> None:
    rank = Rank("::1000")
    rank.flush([row(event, 3, event, event + 1, group=1) for event in range(50)], 100)
    others = [row(50 + second, 3, second * 1000 * MS, second * 1000 * MS + 1) for second in range(60)]
    written = [rank.flush([each], int(each["issued_ns"][0])) for each in others]
    assert [event for found in written for event in found] == list(range(50 - TAIL, 50))
    assert rank.flush([], 60_000 * MS, ended=True) == [109]


def test_messages_of_each_peer_have_an_end_of_their_own() -> None:
    rank = Rank("::1000")
    send, recv = OPS.index("send"), OPS.index("recv")
    kinds = [(send, 1), (send, 2), (recv, 1)]
    rows = [row(each, 3, each, each + 1, op=op, peer=peer) for each, (op, peer) in enumerate(kinds * 40)]
    assert rank.flush(rows, 200) == []
    assert rank.flush([], 300, ended=True) == [117, 118, 119]


def test_an_old_wait_that_nobody_sees_end_does_not_count_as_a_stand() -> None:
    rank = Rank("::1000")
    rank.flush([row(0, 3, 0)], 100)  # its work was dropped unwaited
    for second in range(1, 60):
        at_ns = second * 1000 * MS
        rank.flush([row(100 * second + each, 3, at_ns, at_ns + 1) for each in range(TAIL)], at_ns)
    assert rank.written == set()


@pytest.mark.parametrize("seed", range(5))
def test_nothing_of_chosen_steps_is_lost_whatever_the_order(seed: int) -> None:
    """The last that is written of each collective in a chosen step is all that was learnt of it."""
    random = np.random.default_rng(seed)
    rank, drained, ends = Rank("1:40:3"), [], {}
    for event in range(40 * EACH):
        step, place = divmod(event, EACH)
        if not place:
            rank.begin(step)
        at_ns = step * STEP_NS + place * 1000
        drained.append(row(event, step, at_ns))
        ends[event] = (step, at_ns, at_ns + int(random.integers(1, 4 * STEP_NS)))
        if random.random() < 0.05:
            due = [each for each, (_, _, end_ns) in ends.items() if end_ns <= at_ns]
            drained += [row(each, step, begun, end_ns) for each in due for step, begun, end_ns in (ends.pop(each),)]
            newest = {int(each["event"][0]): each for each in drained}  # as slots have it, an event once
            rank.flush(list(newest.values()), at_ns)
            drained = []
    drained += [row(each, *times) for each, times in ends.items()]
    rank.flush(list({int(each["event"][0]): each for each in drained}.values()), 50 * STEP_NS, ended=True)
    last = {int(each["event"]): each for rows in rank.rows for each in rows}
    chosen_ones = {event for event in range(40 * EACH) if rank.chosen.include(event // EACH)}
    assert chosen_ones <= last.keys()
    assert all(last[event]["completed_ns"] > 0 for event in last)
    assert len(last) < 40 * EACH
