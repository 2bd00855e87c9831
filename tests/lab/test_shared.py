"""The shared link: two at once take twice as long, and the third waits."""

from __future__ import annotations

from lab.shared import SharedLink


def test_an_end_moves_when_the_next_one_begins_before_it() -> None:
    seen = {7: (0, 10)}
    link = SharedLink(7, seen.get)
    assert (link.end_ns(7), link.end_ns(8)) == (10, None)
    seen[8] = (5, 10)
    assert (link.end_ns(7), link.end_ns(8)) == (15, 20)
    seen[9] = (6, 1)
    # It has to wait for a server until 15, and then costs the other one as much as itself.
    assert [link.end_ns(seq) for seq in (7, 8, 9)] == [15, 21, 17]
