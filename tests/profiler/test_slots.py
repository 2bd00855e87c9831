"""Slots: what is drained, when a slot comes back, what a late answer may touch."""

import numpy as np

from commlens.profiler.slots import ENQUEUE_ONLY, FORGET_NS, LINGER_NS, SEEN_ENDED, SEEN_ISSUED, SEEN_WAITED, Slots
from commlens.trace.schema import MISSING, TIMINGS

HOST = TIMINGS.index("host")


def issue(slots: Slots, event: int, at_ns: int = 0, timing: int = HOST) -> int:
    return slots.issue(event, event, 8, 16, at_ns, 2, MISSING, 5, MISSING, 1, 2, 3, timing, 0)


def test_a_drained_row_is_what_was_issued() -> None:
    slots = Slots(4)
    issue(slots, 7, at_ns=100)
    (row,) = slots.drain(200)
    values = {name: row[name].item() for name in row.dtype.names}
    assert values == {
        "event": 7, "seq": 7, "in_bytes": 8, "out_bytes": 16, "issued_ns": 100, "started_ns": -1,
        "completed_ns": -1, "waited_ns": -1, "blocked_ns": -1, "due_ns": 0, "group_size": 2,
        "peer": -1, "step": 5, "bucket": -1, "group": 1, "op": 2, "dtype": 3, "timing": HOST, "thread": 0,
    }  # fmt: skip


def test_a_row_is_drained_again_only_when_more_is_known() -> None:
    slots = Slots(4)
    slot = issue(slots, 1)
    assert len(slots.drain(1)) == 1
    assert len(slots.drain(2)) == 0
    slots.completed(slot, 1, 50)
    (row,) = slots.drain(3)
    assert row["completed_ns"] == 50
    slots.waited(slot, 1, 40, 10)
    (row,) = slots.drain(4)
    assert (row["waited_ns"], row["blocked_ns"]) == (40, 10)
    assert len(slots) == 0  # nothing more to learn
    assert slots.issued == 1


def test_a_row_says_what_of_it_was_drained_before() -> None:
    slots = Slots(16)
    told: dict[int, list[int]] = {}
    taken = [issue(slots, event) for event in range(4)]
    for learnt in ((), (0, 1), (2,)):  # ends, then a wait; 3 learns nothing
        for event in learnt:
            slots.completed(taken[event], event, 50)
        for row in slots.drain(60):
            told.setdefault(int(row["event"]), []).append(int(row["due_ns"]))
    for event in (0, 3):
        slots.waited(taken[event], event, 40, 10)
    for row in slots.drain(70):
        told[int(row["event"])].append(int(row["due_ns"]))
    issued = [0, SEEN_ISSUED]
    assert told == {0: [*issued, SEEN_ISSUED | SEEN_ENDED], 1: issued, 2: issued, 3: issued}
    slots.completed(taken[3], 3, 80)
    assert [int(row["due_ns"]) for row in slots.drain(90)] == [SEEN_ISSUED | SEEN_WAITED]


def test_a_completed_collective_lingers_for_its_wait_then_goes() -> None:
    slots = Slots(4)
    slots.completed(issue(slots, 1), 1, 50)
    slots.drain(100)
    slots.drain(100 + LINGER_NS - 1)
    assert len(slots) == 1
    slots.drain(100 + LINGER_NS)
    assert len(slots) == 0


def test_without_room_collectives_are_counted_not_recorded() -> None:
    slots = Slots(2)
    assert [issue(slots, event) for event in range(3)][2] == MISSING
    assert slots.dropped == 1
    assert slots.drain(1)["event"].tolist() != [2]


def test_under_pressure_nothing_lingers() -> None:
    slots = Slots(4)
    for event in range(3):
        slots.completed(issue(slots, event), event, 10)
    slots.drain(20)
    slots.drain(21)
    assert len(slots) == 0


def test_a_late_answer_cannot_touch_the_slots_next_collective() -> None:
    slots = Slots(1)
    slot = issue(slots, 1)
    slots.completed(slot, 1, 10)
    slots.waited(slot, 1, 10, 0)
    slots.drain(20)
    assert issue(slots, 2) == slot
    slots.completed(slot, 1, 99)
    slots.waited(slot, 1, 99, 1)
    slots.retime(slot, 1, ENQUEUE_ONLY)
    (row,) = slots.drain(30)
    assert (row["event"], row["completed_ns"], row["waited_ns"], row["timing"]) == (2, -1, -1, HOST)


def test_ends_nobody_can_see_do_not_hold_their_slots() -> None:
    slots = Slots(8)
    issue(slots, 1, timing=ENQUEUE_ONLY)
    issue(slots, 2)
    slots.drain(0)
    slots.drain(LINGER_NS)
    assert len(slots) == 1  # the host-timed one may still complete
    slots.drain(FORGET_NS + 1)
    slots.drain(FORGET_NS + 2)
    assert len(slots) == 0


def test_a_long_random_life_loses_nothing_and_keeps_the_last_word() -> None:
    rng = np.random.default_rng(1)
    slots, truth, last = Slots(64), {}, {}
    waiting: list[tuple[int, int]] = []
    for event in range(5000):
        slot = issue(slots, event, at_ns=event)
        if slot == MISSING:
            continue
        truth[event] = MISSING
        waiting.append((slot, event))
        while waiting and rng.random() < 0.6:
            done_slot, done = waiting.pop(int(rng.integers(len(waiting))))
            truth[done] = event + 1
            slots.completed(done_slot, done, event + 1)
            slots.waited(done_slot, done, event, 1)
        if rng.random() < 0.2:
            last |= {int(row["event"]): int(row["completed_ns"]) for row in slots.drain(event)}
    last |= {int(row["event"]): int(row["completed_ns"]) for row in slots.drain(5000)}
    assert last == truth
    assert slots.issued == len(truth)
    assert slots.dropped == 5000 - len(truth)
