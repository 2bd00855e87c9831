"""Whatever two runs lack, they are compared, or refused, and the result is JSON whose changes add up."""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from noisy_job import noisy_job
from synthetic import RankTruth, write_run

from commlens.analyzers.comparison import Side, compare, side
from commlens.analyzers.gating import STATES, judge_comparison, judge_report, parse_condition, parse_regress
from commlens.analyzers.gating.conditions import ABSTENTIONS, COUNTS, SHARES, TIMES
from commlens.analyzers.gating.regressions import PARTS
from commlens.analyzers.stages import examine
from commlens.trace import open_run

WHOLE = noisy_job(0, steps=16, ranks=3).truths()
ODD = ({}, {}, {"models": None, "hooks": []}, {"interfaces": [1], "environment": {"NCCL_X": 3}})
GATES = [
    *(f"{name}>1{'' if name in COUNTS else '%' if name in SHARES else 'ms'}" for name in (*TIMES, *SHARES, *COUNTS)),
    *(f"abstention:{name}" for name in ABSTENTIONS),
    "finding:any",
]


def torn(random: np.random.Generator) -> dict[int, RankTruth]:
    """Ranks that lack rows and phases, whose ends may be unknown, and whose rank.json may be of another shape."""
    ranks = random.permutation(3)[: random.integers(1, 4)].tolist()
    return {rank: _torn(WHOLE[rank], random) for rank in ranks}


def _torn(truth: RankTruth, random: np.random.Generator) -> RankTruth:
    rows_kept, phases_kept, ends_kept = random.choice([1.0, 1.0, 0.9, 0.3, 0.0], 3)
    rows = [row for row in truth.collectives if random.random() < rows_kept]
    rows = [row if random.random() < ends_kept else replace(row, completed_ns=-1) for row in rows]
    phases = [phase for phase in truth.phases if random.random() < phases_kept]
    info = truth.info | ODD[random.integers(len(ODD))]
    return replace(truth, collectives=rows, phases=phases, info=info)


def seen(truths: dict[int, RankTruth]) -> Side:
    with tempfile.TemporaryDirectory() as folder:
        return side(examine(open_run(write_run(Path(folder), truths, world_size=3))))


@pytest.mark.parametrize("seed", range(12))
def test_any_two_runs(seed: int) -> None:
    random = np.random.default_rng(seed)
    sides = seen(torn(random)), seen(torn(random))
    found = compare(*sides, [sides[0]])
    whole = found.to_dict()
    assert json.loads(json.dumps(whole, allow_nan=False)) == whole
    for pair in (found.step, *found.parts.values(), *(each.exposed for each in found.collectives)):
        assert (pair.verdict is None) == (pair.low_ms is None) == (pair.high_ms is None)
        if pair.low_ms is not None:
            assert pair.low_ms <= pair.change_ms <= pair.high_ms
    limits = [parse_regress(f"{part}=1ms") for part in PARTS]
    outcomes = (
        *judge_comparison(limits, found),
        *judge_report([parse_condition(gate) for gate in GATES], sides[0].report),
    )
    assert {each.state for each in outcomes} <= set(STATES)
    assert all(each.said for each in outcomes)
