"""ByteDance's what-if analysis of stragglers (OSDI'25), with our simulator on their traces and against their answers.

The published numbers are the artifact's result-*.json, mw-*.json and ms-*.json: step times in seconds, means over the
recorded steps. The original is replayed without launch delays; in the ideal one every operation takes what its kind
takes on average (computing) or in the median (transfers) over all ranks, stages and steps. Slowdown is their ratio.
"""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from analyzers.operation_table import NS, SENT, Op, Operations, pipeline_model, read_operations, usual
from numpy.typing import NDArray

from commlens.analyzers.whatif.altered import alter
from commlens.analyzers.whatif.model import Model
from commlens.analyzers.whatif.steady import Batch, simulate
from commlens.trace.changes import parse

TRACES = Path(__file__).parents[3] / "shared" / "traces"
pytestmark = pytest.mark.skipif(not TRACES.is_dir(), reason="the real traces are not beside this repository")

Floats = NDArray[np.float64]
AGREES = 0.006
JOBS = ["AR", "ST"]  # one worker slowed on purpose; last stage too large


@cache
def operations(job: str) -> Operations:
    return read_operations(TRACES / f"bytedance-straggler-{job}" / f"trace-{job}.parquet")


@cache
def ideal(job: str) -> dict[Op, Floats]:
    return usual(operations(job))


def published(job: str, what: str) -> dict[str, Any]:
    found = json.loads((TRACES / f"bytedance-straggler-{job}" / f"{what}-{job}.json").read_text())
    assert isinstance(found, dict)
    return found


def step_s(model: Model) -> float:
    """Mean over every recorded step; before the first two, the last ones run."""
    which = np.arange(model.steps)
    batch = Batch(which, np.zeros(which.size, np.int64), np.ones(which.size))
    return float(simulate(model, batch).mean()) / NS


def replayed(job: str, seconds: dict[Op, Floats]) -> float:
    return step_s(pipeline_model(operations(job), seconds))


def mixed(job: str, own: Any, base: dict[Op, Floats], other: dict[Op, Floats]) -> dict[Op, Floats]:
    """`base`, with what `other` says wherever `own(op)` says so: of every rank, of one data-parallel rank, of none."""
    changed = {op: seconds.copy() for op, seconds in base.items()}
    for op, seconds in changed.items():
        rows = own(op)
        seconds[rows] = other[op][rows]
    return changed


def kind(op: Op) -> str:
    """As the answers name it."""
    return f"{op.kind.split('-')[0]}-pp-comm" if op.kind in SENT else op.kind


def whole(chosen: bool) -> slice:
    return slice(None) if chosen else slice(0)


@pytest.mark.parametrize("job", JOBS)
def test_the_recorded_step_is_replayed(job: str) -> None:
    assert replayed(job, operations(job).seconds) == pytest.approx(published(job, "ms")["tori"], rel=0.01)


@pytest.mark.parametrize("job", JOBS)
def test_the_ideal_step_is_the_published_one(job: str) -> None:
    assert replayed(job, ideal(job)) == pytest.approx(published(job, "ms")["tideal"], rel=1e-5)


@pytest.mark.parametrize("job", JOBS)
def test_the_slowdown_is_the_published_one(job: str) -> None:
    slowdown = replayed(job, operations(job).seconds) / replayed(job, ideal(job))
    assert slowdown == pytest.approx(published(job, "result")["blocking_slowdown"], rel=0.01)


@pytest.mark.parametrize("job", JOBS)
@pytest.mark.parametrize("by", ["dp_rank", "stage", "optype"])
def test_the_slowdown_of_each_part_is_the_published_one(job: str, by: str) -> None:
    """The ideal step with a data-parallel rank's, a stage's or a kind's operations as they were."""
    expected = published(job, "result")[f"blocking_decompose_by_{by}"]
    choices: dict[str, Any] = {
        "dp_rank": lambda key: lambda op: slice(int(key), int(key) + 1),
        "stage": lambda key: lambda op: whole(op.stage == int(key)),
        "optype": lambda key: lambda op: whole(kind(op) == key),
    }
    assert len(expected) >= 2
    best = replayed(job, ideal(job))
    for key, value in expected.items():
        part = mixed(job, choices[by](key), ideal(job), operations(job).seconds)
        assert replayed(job, part) / best == pytest.approx(value, rel=AGREES), key


@pytest.mark.parametrize("job", JOBS)
def test_the_last_stage_explains_what_is_published(job: str) -> None:
    """M_S: what the step would be with an ideal last stage, and the ideal one with the last stage as it was."""
    answer, last = published(job, "ms"), operations(job).stages - 1
    original = operations(job).seconds

    def own(op: Op) -> slice:
        return whole(op.stage == last)

    removed = replayed(job, mixed(job, own, original, ideal(job)))
    added = replayed(job, mixed(job, own, ideal(job), original))
    assert removed == pytest.approx(answer["trem"], rel=AGREES)
    assert added == pytest.approx(answer["tadd"], rel=AGREES)
    share = (replayed(job, original) - removed) / (answer["tori"] - answer["tideal"])
    assert share == pytest.approx(answer["Ms"], abs=AGREES)


@pytest.mark.parametrize(("job", "dp", "stage"), [("AR", 0, 0), ("ST", 1, 3)])
def test_the_worst_worker_explains_what_is_published(job: str, dp: int, stage: int) -> None:
    """M_W: the worker is the one of the highest published slowdown by rank and by stage."""
    answer, original = published(job, "mw"), operations(job).seconds

    def own(op: Op) -> slice:
        return slice(dp, dp + 1) if op.stage == stage else slice(0)

    removed = replayed(job, mixed(job, own, original, ideal(job)))
    assert removed == pytest.approx(answer["trem"], rel=AGREES)
    assert replayed(job, mixed(job, own, ideal(job), original)) == pytest.approx(answer["tadd"], rel=AGREES)
    share = (replayed(job, original) - removed) / (answer["tori"] - answer["tideal"])
    assert share == pytest.approx(answer["Mw"], abs=AGREES)


def test_our_own_removal_of_a_straggler_gains_what_is_published() -> None:
    """`straggler.remove` among the ranks that do the same: the data-parallel ranks of the slow worker's stage."""
    job, slow, answer = "AR", 0, published("AR", "mw")
    model, stages = pipeline_model(operations(job), operations(job).seconds), operations(job).stages
    peers = slice(slow, None, stages)
    alike = replace(
        model,
        step_ns=model.step_ns[peers],
        low_ns=model.low_ns[:, peers],
        high_ns=model.high_ns[:, peers],
        share=model.share[:, peers],
        late=(0,),
    )
    healed = alter(alike, [parse("straggler.remove=1")])
    assert isinstance(healed, Model)
    low = model.low_ns.copy()
    low[:, peers] = healed.low_ns
    step = step_s(replace(model, low_ns=low, high_ns=low))
    # They make it as fast as the mean of all stages, we as fast as the median of its peers.
    assert step == pytest.approx(answer["trem"], rel=0.05)
    assert step_s(model) / step == pytest.approx(answer["tori"] / answer["trem"], rel=0.05)


@pytest.mark.parametrize(("forward", "backward", "message"), [(1.0, 2.0, 0.1), (1.0, 1.0, 0.7), (2.0, 1.0, 1.5)])
def test_pipelines_are_as_long_as_their_longest_chain(forward: float, backward: float, message: float) -> None:
    """Each begins after the one before on its stage, and a message after its counterpart on the other stage."""
    of = operations("ST")
    spent = {"forward-compute": forward, "backward-compute": backward, **dict.fromkeys(SENT, message)}
    seconds = {op: np.full_like(own, spent.get(op.kind, 0.0)) for op, own in of.seconds.items()}
    ends: dict[Op, float] = {}

    def end(op: Op) -> float:
        if op not in ends:
            order = of.computing(op.stage)
            place = order.index(op)
            far = op._replace(stage=op.stage + (-1 if op.kind == "forward-compute" else 1))
            before = [end(order[place - 1])] if place else []
            ends[op] = spent[op.kind] + max([0.0, *before, *([end(far) + message] if far in of.starts else [])])
        return ends[op]

    assert replayed("ST", seconds) == pytest.approx(max(end(of.computing(stage)[-1]) for stage in range(of.stages)))
