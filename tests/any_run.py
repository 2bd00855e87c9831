"""Runs of anything that a trace may say, for properties."""

from __future__ import annotations

from hypothesis import strategies as st
from synthetic import UNNUMBERED, Collective, Phase, RankTruth

from commlens.trace.schema import OPS, TIMINGS

TIMES = st.integers(0, 400)
MAYBE = st.one_of(st.just(-1), TIMES)


@st.composite
def rows(draw: st.DrawFn) -> Collective:
    return Collective(
        issued_ns=draw(TIMES),
        completed_ns=draw(MAYBE),
        started_ns=draw(MAYBE),
        waited_ns=draw(MAYBE),
        blocked_ns=draw(MAYBE),
        op=draw(st.sampled_from(OPS)),
        group=draw(st.sampled_from(["0", "1"])),
        in_bytes=draw(st.sampled_from([-1, 0, 8, 4096])),
        out_bytes=draw(st.sampled_from([-1, 0, 8, 4096])),
        seq=draw(st.sampled_from([UNNUMBERED, 0, 1, 2, 3])),
        timing=draw(st.sampled_from(TIMINGS)),
        group_size=draw(st.integers(-1, 4)),
        thread=draw(st.integers(0, 1)),
        peer=draw(st.integers(-1, 4)),
    )


@st.composite
def ranks(draw: st.DrawFn) -> RankTruth:
    phases = [Phase("optimizer", end - 3, end) for end in draw(st.sampled_from([(), (20, 60, 150, 280, 400)]))]
    for _ in range(draw(st.integers(0, 4))):
        start = draw(TIMES)
        phases.append(Phase(draw(st.sampled_from(["forward", "backward"])), start, start + draw(TIMES)))
    members = st.lists(st.integers(0, 4), max_size=4, unique=True)
    groups = [{"name": name, "ranks": draw(members), "workers": draw(st.sampled_from([None, 1, 2]))} for name in "01"]
    info = {"boot_id": draw(st.sampled_from(["a", "b", None])), "groups": draw(st.sampled_from([groups, [], None]))}
    return RankTruth(draw(st.lists(rows(), max_size=10)), phases, ddp=draw(st.booleans()), info=info)
