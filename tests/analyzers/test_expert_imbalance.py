"""Finding expert-imbalance: balancing moves work, so that its ceiling is what an even split gains, not all waiting."""

from __future__ import annotations

from pathlib import Path

import pytest
from synthetic import MS, START, Collective, Phase, RankTruth, write_run

import commlens

STEPS = 40
EXCHANGE_MS, EVEN_MS, OPTIMIZER_MS = 2.0, 20.0, 5.0
TOKEN_BYTES, TOKENS = 1000, 100


def experts(more_ms: list[float]) -> dict[int, RankTruth]:
    """Ranks that get tokens, and then work on them for so much longer than the least; then all exchange again."""
    ranks = len(more_ms)
    took = [EVEN_MS + more for more in more_ms]
    got = [round(TOKENS * each / EVEN_MS) * TOKEN_BYTES for each in took]
    step_ms = 2 * EXCHANGE_MS + max(took) + OPTIMIZER_MS
    groups = [{"name": "0", "desc": "default_pg", "ranks": list(range(ranks)), "size": ranks}]
    truths = {}
    for rank in range(ranks):
        rows, phases = [], []
        for step in range(STEPS):
            begin = START + round(step * step_ms * MS)
            back = begin + round((EXCHANGE_MS + max(took)) * MS)  # when the last rank has done its work
            spans = [
                (begin, begin + round(EXCHANGE_MS * MS), sum(got) // ranks, got[rank]),
                (begin + round((EXCHANGE_MS + took[rank]) * MS), back + round(EXCHANGE_MS * MS), got[rank], got[rank]),
            ]
            for issued, done, given, taken in spans:
                times = (issued, done, issued, issued, done - issued)
                rows.append(Collective(*times, op="all_to_all", in_bytes=given, out_bytes=taken, group_size=ranks))
            end = begin + round(step_ms * MS)
            phases += [
                Phase("backward", begin, end - round(OPTIMIZER_MS * MS)),
                Phase("optimizer", end - round(OPTIMIZER_MS * MS), end, "SGD"),
            ]
        truths[rank] = RankTruth(rows, phases, info={"host": "one", "boot_id": "one", "groups": groups})
    return truths


@pytest.mark.parametrize("more_ms", [[30.0, 0.0], [30.0, 0.0, 0.0, 0.0], [30.0, 30.0, 0.0, 0.0, 0.0]])
def test_the_ceiling_is_what_an_even_split_gains(tmp_path: Path, more_ms: list[float]) -> None:
    report = commlens.analyze(commlens.open_run(write_run(tmp_path / "run", experts(more_ms))))
    (found,) = (each for each in report.findings if each.id == "expert-imbalance")
    assert found.ranks == tuple(rank for rank, more in enumerate(more_ms) if more)
    told = {each.name: each.value for each in found.evidence}
    moving = next(value for name, value in told.items() if name.startswith("exposed transfer per step"))
    evened = max(more_ms) - sum(more_ms) / len(more_ms)
    assert isinstance(moving, float) and found.ceiling_ms is not None
    assert found.ceiling_ms - moving == pytest.approx(evened, abs=0.05)
    assert told["of that an even split saves, as the others then have more to do"] == pytest.approx(evened, abs=0.05)
