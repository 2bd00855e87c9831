"""What the simulator makes of FSDP's units: steps by hand, laws, and which collectives of a recording they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from analyzers.test_whatif_changes import changed, refused
from analyzers.whatif_model import MS, OPTIMIZER, SLACK, check_ceiling, fsdp_model, fsdp_truths, link, step_ms
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import write_run

import commlens
from commlens.analyzers.whatif.asked import simulator_of
from commlens.analyzers.whatif.coefficients import exact_line
from commlens.analyzers.whatif.link_changes import FREE_CASTS
from commlens.analyzers.whatif.model import Model
from commlens.analyzers.whatif.nodes import GATHER, REGATHER, SCATTER
from commlens.analyzers.whatif.predicted import predict, replay
from commlens.analyzers.whatif.sharded import _labelled
from commlens.analyzers.whatif.textbook import HALVES
from commlens.analyzers.whatif.usual import usual_sets
from commlens.trace.changes import parse_all
from commlens.trace.schema import MISSING

MB = 1_000_000
SIZES = [1 * MB, 2 * MB, 3 * MB]
OWN = 3 * 10 + 3 * 20 + OPTIMIZER  # ms of each rank's own work


@pytest.fixture
def model() -> Model:
    """Units of 1, 2 and 3 MB at 1 ms + 1 ns/B: 2, 3 and 4 ms for each of gather, gather again and scatter."""
    return fsdp_model(SIZES, 1, 1, 10, 20, late_ms=[0] * 4)


@pytest.mark.parametrize(
    ("text", "communication"),
    [
        ("fsdp.reshard_after_forward=1", 3 * 9),
        ("fsdp.reshard_after_forward=0", 2 * 9),
        # {1, 2} MB take 1 + 3 ms, {3} 1 + 3.
        ("fsdp.unit_merge=2", 3 * 8),
        ("fsdp.unit_merge=3", 3 * 7),
        ("fsdp.unit_merge=9", 3 * 7),
        ("fsdp.unit_merge=1", 3 * 9),
        # Half of 6 MB less to scatter.
        ("fsdp.reduce_dtype=bf16", 3 * 9 - 3),
        ("fsdp.reduce_dtype=fp32", 3 * 9),
        ("fsdp.reshard_after_forward=0,fsdp.unit_merge=3", 2 * 7),
        ("fsdp.unit_merge=3,fsdp.reshard_after_forward=0", 2 * 7),
        ("fsdp.unit_merge=3,fsdp.reduce_dtype=bf16", 3 * 7 - 3),
        # Of 4 ranks to 2: latency * 1/3, bytes * (1/2) / (3/4) = 2/3. Gathering 3 * 1/3 + 6 * 2/3 = 5 ms, twice;
        # scattering the same, and an all_reduce (2 ms + 2 ns/B, as both together) of half the bytes between 2 copies:
        # 3 * 2/3 + 6 / 2 * 2 * 2/3 = 6 ms.
        ("fsdp.shard_size=2", 3 * 5 + 6),
        # Each rank for itself: no gathering; all_reduce between 4 copies: 3 * 2 + 6 * 2.
        ("fsdp.shard_size=1", 18),
        ("fsdp.shard_size=4", 3 * 9),
        # A unit's gather is hidden behind the one before it, but the first of forward (2 ms) and of backward (4 ms).
        ("fsdp.prefetch=1", 2 + 4 + 9),
        ("fsdp.prefetch=2", 2 + 4 + 9),
        ("fsdp.prefetch=0", 3 * 9),
        ("fsdp.prefetch=1,fsdp.reshard_after_forward=0", 2 + 9),
        ("fsdp.reshard_after_forward=0,fsdp.prefetch=1", 2 + 9),
        # 8 ranks: latency * 7/3, bytes * (7/8) / (3/4) = 7/6.
        ("world_size=8", 3 * (3 * 7 / 3 + 6 * 7 / 6)),
        ("link.bandwidth=x2", 3 * (3 + 3)),
        # Halved once, by whichever comes first: 3 * (3 + 3).
        ("wire.dtype=bf16,fsdp.reduce_dtype=bf16", 3 * (3 + 3)),
        ("fsdp.reduce_dtype=bf16,wire.dtype=bf16", 3 * (3 + 3)),
        ("fsdp.unit_merge=3,link.bandwidth=x2", 3 * (1 + 3)),
    ],
)
def test_what_a_change_makes_of_the_step(model: Model, text: str, communication: float) -> None:
    assert step_ms(changed(model, text)) == pytest.approx(OWN + communication)


def test_gathers_ahead_may_not_arrive_in_time() -> None:
    # Gathers of 1 + 6, 1 + 6 and 1 + 30 ms, units of 10 and 20 ms. One ahead: the third is issued when the second
    # begins (17 ms) and comes at 48, its forward ends at 58. In backward: 31, 20, 31 to scatter; behind them the
    # others come in time but for the scatters: 20 + 7 + 20 + 7.
    model = fsdp_model([6 * MB, 6 * MB, 30 * MB], 1, 1, 10, 20)
    backward = 31 + 20 + 31 + 20 + 7 + 20 + 7
    assert step_ms(changed(model, "fsdp.prefetch=1")) == pytest.approx(58 + backward + OPTIMIZER)
    # Two ahead: the third is issued when the first begins (7 ms), runs behind the second and comes at 45.
    assert step_ms(changed(model, "fsdp.prefetch=2")) == pytest.approx(55 + backward + OPTIMIZER)


def test_the_outermost_modules_own_parameters_stay_alone() -> None:
    model = fsdp_model(SIZES, 1, 1, 10, 20, kept=[0])
    merged = changed(model, "fsdp.unit_merge=2")
    assert [node.bytes for node in merged.nodes if node.part == GATHER] == [1 * MB, 5 * MB]
    assert [node.bytes for node in merged.nodes if node.part == REGATHER] == [5 * MB]
    assert [node.bytes for node in merged.nodes if node.part == SCATTER] == [5 * MB, 1 * MB]
    assert step_ms(merged) == pytest.approx(OWN + 2 * (2 + 6) + 6)


def test_what_predictions_rest_on(model: Model) -> None:
    assert "there is memory for 6 MB of parameters" in changed(model, "fsdp.reshard_after_forward=0").assumptions[0]
    assert FREE_CASTS in changed(model, "fsdp.reduce_dtype=bf16").assumptions
    sharded = changed(model, "fsdp.shard_size=2")
    assert sharded.widen == 2
    assert HALVES in sharded.assumptions


def test_what_cannot_be_told_is_refused_with_a_reason(model: Model) -> None:
    assert "cannot be split" in refused(model, "fsdp.shard_size=3")
    assert model.units is not None
    blocking = replace(model, units=replace(model.units, synchronous=True))
    assert "block the thread" in refused(blocking, "fsdp.prefetch=1")
    assert changed(blocking, "fsdp.prefetch=0") is blocking
    spread = replace(model, links=(replace(model.links[0], hosts=(2, 2)),))
    assert "of one host" in refused(spread, "fsdp.shard_size=2")
    strange = replace(model, units=replace(model.units, refusal="not as FSDP2 issues them"))
    assert refused(strange, "fsdp.unit_merge=2") == "not as FSDP2 issues them"
    one = replace(model, nodes=tuple(replace(node, lines=("one size only",)) for node in model.nodes))
    assert "one size only" in refused(one, "fsdp.unit_merge=2")
    # Leaving gathers out needs no cost of other sizes.
    assert step_ms(changed(one, "fsdp.reshard_after_forward=0")) == pytest.approx(OWN + 18)


def test_what_the_thread_does_for_a_collective_goes_with_it(model: Model) -> None:
    # 0.5 ms before each gather of backward but the first, which comes behind the loss: 2 of 3 are told, the first
    # counts as they do. Without gathers in backward three times 0.5 ms go, with all units in one six collectives.
    late = model.low_ns.copy()
    regathers = [n for n, point in enumerate(model.points) if model.nodes[point.node].part == REGATHER]
    for place in regathers[::2]:
        late[place:] += 0.5 * MS
    working = replace(model, low_ns=late, high_ns=late)
    assert step_ms(working) == pytest.approx(OWN + 1.5 + 3 * 9)
    assert step_ms(changed(working, "fsdp.reshard_after_forward=0")) == pytest.approx(OWN + 2 * 9)
    merged = changed(working, "fsdp.unit_merge=3")
    assert step_ms(merged) == pytest.approx(OWN + 1.5 - 6 * 0.5 + 3 * 7)
    predicted, ceiling = predict(replay(working), merged)
    assert predicted.gain_ms == pytest.approx(9) and ceiling == pytest.approx(3 * 9 + 3)


def test_shards_of_one_host_cost_what_was_measured_there(model: Model) -> None:
    # Within a host 0.1 ms + 0.1 ns/B: 0.3 + 0.6 ms for each of both gathers and the scatter; between, as above, 6 ms.
    inner = exact_line(0.1 * MS, 0.1)
    own = replace(link(all_gather=inner, reduce_scatter=inner), members=(0, 1), hosts=(2,))
    spread = replace(model, links=(replace(model.links[0], hosts=(2, 2)), own))
    assert step_ms(changed(spread, "fsdp.shard_size=2")) == pytest.approx(OWN + 3 * 0.9 + 6)
    assert "of one host" in refused(spread, "fsdp.shard_size=1")


# --- laws -------------------------------------------------------------------------------------------------------

models = st.builds(
    fsdp_model,
    sizes=st.lists(st.integers(1, 5000), min_size=1, max_size=8).map(lambda sizes: [1000 * size for size in sizes]),
    alpha_ms=st.floats(0, 5),
    ns_per_byte=st.floats(0.1, 20),
    forward_ms=st.floats(0.1, 20),
    backward_ms=st.floats(0.1, 40),
    late_ms=st.sampled_from([2, 4]).flatmap(lambda count: st.lists(st.floats(0, 20), min_size=count, max_size=count)),
    steps=st.just(5),
    kept=st.sampled_from([(), (0,)]),
)


@given(
    model=models,
    text=st.sampled_from(
        [
            "fsdp.reshard_after_forward=0",
            "fsdp.unit_merge=2",
            "fsdp.reduce_dtype=fp16",
            "fsdp.prefetch=1",
            "fsdp.reshard_after_forward=0,fsdp.unit_merge=3,fsdp.reduce_dtype=bf16,link.bandwidth=x2",
        ]
    ),
)
@settings(max_examples=80, deadline=None)
def test_fewer_and_smaller_messages_or_earlier_ones_are_never_slower(model: Model, text: str) -> None:
    # Merged units of one thread that stands still each time: a latency less, the same bytes.
    assert step_ms(changed(model, text)) <= step_ms(model) + SLACK


@given(
    model=models,
    text=st.sampled_from(
        [
            "fsdp.reshard_after_forward=0",
            "fsdp.unit_merge=2",
            "fsdp.reduce_dtype=bf16",
            "fsdp.prefetch=2",
            "fsdp.shard_size=1",
            "fsdp.shard_size=2",
            "world_size=64",
            "fsdp.unit_merge=9,imbalance.remove=1",
        ]
    ),
)
@settings(max_examples=80, deadline=None)
def test_no_gain_exceeds_its_ceiling(model: Model, text: str) -> None:
    check_ceiling(model, changed(model, text))


@given(model=models)
@settings(max_examples=50, deadline=None)
def test_what_is_so_already_gains_nothing(model: Model) -> None:
    ranks = model.step_ns.shape[0]
    for text in ("fsdp.unit_merge=1", "fsdp.reduce_dtype=fp32", f"fsdp.shard_size={ranks}", f"world_size={ranks}"):
        predicted, _ = predict(replay(model), changed(model, text))
        assert predicted.gain_ms == 0
        assert predicted.low_ms <= 0 <= predicted.high_ms


@given(model=models)
@settings(max_examples=50, deadline=None)
def test_all_units_in_one_send_the_same_bytes(model: Model) -> None:
    merged = changed(model, "fsdp.unit_merge=1000")
    for part in (GATHER, SCATTER):
        before, after = (sum(n.bytes for n in each.nodes if n.part == part) for each in (model, merged))
        assert before == pytest.approx(after)


# --- recorded runs ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kept", [(), (0,)])
def test_a_recorded_fsdp_job_becomes_its_model(tmp_path: Path, kept: tuple[int, ...]) -> None:
    truths = fsdp_truths(SIZES, 1, 1, 10, 20, late_ms=[0, 3], kept=kept)
    found = simulator_of(commlens.open_run(write_run(tmp_path / "run", truths)))
    same = fsdp_model(SIZES, 1, 1, 10, 20, late_ms=[0, 3], kept=kept)
    assert found.refusal is None
    assert found.baseline is not None
    model = found.baseline.model
    assert [(node.part, node.unit) for node in model.nodes] == [(node.part, node.unit) for node in same.nodes]
    assert model.units is not None
    assert (model.units.count, model.units.synchronous, model.units.refusal) == (3, True, None)
    assert found.baseline.replayed_ns / MS == pytest.approx(step_ms(same), abs=1e-3)
    for text in ("fsdp.reshard_after_forward=0", "fsdp.unit_merge=2", "fsdp.reduce_dtype=bf16", "world_size=8"):
        scenario = found.scenario(parse_all(text))
        assert scenario.predicted is not None
        assert scenario.predicted.step_ms == pytest.approx(step_ms(changed(same, text)), rel=0.01)


@pytest.mark.parametrize(
    ("op", "ranks", "calls", "synchronous"),
    [
        ("all_gather", [1], 1, True),  # its core was taken away
        ("reduce_scatter", [1], 3, True),
        ("all_gather", [0, 1], 1, True),
        ("reduce_scatter", [0, 1], 3, False),  # waited for later, as on GPUs
        ("all_gather", [0, 1], 6, False),
    ],
)
def test_one_call_that_took_longer_to_return_is_no_asynchronous_job(
    tmp_path: Path, op: str, ranks: list[int], calls: int, synchronous: bool
) -> None:
    """Half a millisecond of the thread's own between issue and wait, in every step."""
    truths, steps = fsdp_truths(SIZES, 1, 1, 10, 20), 12
    for rank in ranks:
        rows = truths[rank].collectives
        own = [place for place, row in enumerate(rows) if row.op == op]
        for place in (own[each] for step in range(steps) for each in range(step * len(own) // steps, len(own))[:calls]):
            waited, stood = rows[place].waited_ns + MS // 2, rows[place].blocked_ns - MS // 2
            rows[place] = replace(rows[place], waited_ns=waited, blocked_ns=stood)
    found = simulator_of(commlens.open_run(write_run(tmp_path / "run", truths)))
    assert found.baseline is not None
    assert found.baseline.model.units is not None
    assert found.baseline.model.units.synchronous is synchronous
    assert (found.scenario(parse_all("fsdp.prefetch=1")).predicted is None) is synchronous


def test_what_usually_matters_is_asked_of_fsdp(tmp_path: Path) -> None:
    truths = fsdp_truths(SIZES, 1, 1, 10, 20)
    found = simulator_of(commlens.open_run(write_run(tmp_path / "run", truths)))
    names = [str(change) for each in usual_sets(found) for change in each]
    wanted = {"fsdp.reshard_after_forward=0", "fsdp.unit_merge=2", "fsdp.reduce_dtype=bfloat16"}
    assert wanted <= set(names)
    assert not any(name.startswith("ddp.") for name in names)


def _found(pattern: str, sizes: dict[str, float] | None = None) -> list[tuple[str, int]] | None:
    """Labels of "F0 F1 B1 S1 ...": kind and unit, whose number tells the size; "|" ends a backward."""
    nodes: list[Any] = []
    backward: list[int] = []
    turn = 0
    for word in pattern.split():
        if word == "|":
            turn += 1
            continue
        op = "reduce_scatter" if word[0] == "S" else "all_gather"
        nodes.append(_Sized(op, (sizes or {}).get(word, float(word[1:]) + 1)))
        backward.append(MISSING if word[0] == "F" else turn)
    return _labelled(nodes, np.array(backward))


class _Sized:
    def __init__(self, op: str, size: float) -> None:
        self.op, self.bytes = op, size


def _told(labels: Sequence[tuple[str, int]] | None) -> str | None:
    letters = {GATHER: "F", REGATHER: "B", SCATTER: "S"}
    return " ".join(f"{letters[part]}{unit}" for part, unit in labels) if labels is not None else None


@pytest.mark.parametrize(
    "pattern",
    [
        "F0 F1 F2 B2 S2 B1 S1 B0 S0",
        # The root's own parameters are kept, and the next unit is gathered ahead.
        "F0 F1 F2 B2 B1 S2 S1 S0",
        "F0 F1 F2 S2 S1 S0",
        # Micro-batches: with reduction each, and the first without.
        "F0 F1 B1 S1 B0 S0 | F0 F1 B1 S1 B0 S0",
        "F0 F1 B1 B0 | F0 F1 B1 S1 B0 S0",
    ],
)
def test_units_are_told_by_the_order_of_their_collectives(pattern: str) -> None:
    assert _told(_found(pattern)) == " ".join(pattern.replace("|", "").split())


@pytest.mark.parametrize("pattern", ["F0 F1 S0 S1", "F0 F1 F2 B1 B2 S2 S1 S0", "F0 F1 B1 S1", "F0 S0 S1"])
def test_other_orders_are_not_understood(pattern: str) -> None:
    assert _found(pattern) is None
