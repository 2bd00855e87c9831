"""Each change of the simulator against steps computed by hand, and the laws that all of them obey."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from analyzers.whatif_model import (
    FORWARD,
    MS,
    OPTIMIZER,
    SLACK,
    changed,
    check_ceiling,
    ddp_model,
    ddp_truths,
    link,
    step_ms,
    with_buffers,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import write_run

import commlens
from commlens.analyzers.whatif.altered import REGISTRY, alter
from commlens.analyzers.whatif.asked import simulator_of
from commlens.analyzers.whatif.buckets import BucketSettings
from commlens.analyzers.whatif.coefficients import exact_line, meeting
from commlens.analyzers.whatif.ddp_changes import FREE_CODING
from commlens.analyzers.whatif.edited import without
from commlens.analyzers.whatif.links import _hosts
from commlens.analyzers.whatif.model import Model
from commlens.analyzers.whatif.nodes import BUFFERS, USED_MAP
from commlens.analyzers.whatif.predicted import predict, replay
from commlens.analyzers.whatif.textbook import ESTIMATE, HALVES, carried_over
from commlens.analyzers.whatif.usual import usual_sets
from commlens.cli.whatif import _swept
from commlens.trace.change_kinds import ENV, KINDS
from commlens.trace.changes import parse_all

KB = 1000
FIXED = FORWARD + OPTIMIZER
SIZES = [100 * KB] * 20
SHAPES = [(100, 250)] * 20


def refused(model: Model, text: str) -> str:
    altered = alter(model, parse_all(text))
    assert isinstance(altered, str)
    return altered


def cap(size: float) -> BucketSettings:
    return BucketSettings(bucket_cap_mb=size / 2**20)


@pytest.fixture
def model() -> Model:
    """Four buckets of 0.5 MB on two ranks: 2 + 5 ms each, ready every 12.5 ms; the last one is exposed."""
    return ddp_model(SIZES, 2, 10, 50, cap(0.5e6), shapes=SHAPES)


def test_every_name_can_be_simulated_but_variables() -> None:
    assert {kind.name for kind in KINDS} == REGISTRY.keys() | {ENV}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # A gradient of 100 x 250 becomes factors of 100 and 250 elements, 1400 bytes; five of them in a bucket, sent
        # as two messages: 2 * 2 ms + 7000 B * 10 ns/B.
        ("ddp.comm_hook=powersgd:rank=1", 50 + 4 + 0.07),
        ("ddp.comm_hook=powersgd:rank=2", 50 + 4 + 0.14),
        # An all_gather costs half an all_reduce (1 ms + 5 ns/B) and carries 2 ranks * (125000 + 8) bytes, in two
        # messages.
        ("ddp.comm_hook=quantize", 50 + 2 + 250_016 * 5e-6),
        # The model of 2 MB: 2 + 20 ms, every fourth step.
        ("sync.period=4", 50 + 22 / 4),
        ("sync.period=1", 50 + 22),
        # 3/1 of the latency, (3/4)/(1/2) of the bytes: 6 + 7.5 ms a bucket, which queue from 12.5 ms on.
        ("world_size=4", 12.5 + 4 * 13.5),
        ("world_size=1", 50),
        ("world_size=2", 57),
        ("world_size=4,link.bandwidth=x1.5", 50 + 11),
        ("world_size=4,ddp.bucket_cap_mb=1000", 50 + 6 + 30),
        ("ddp.gradient_as_bucket_view=0", 57),
        ("ddp.static_graph=1", 57),
    ],
)
def test_what_a_change_makes_of_the_step(model: Model, text: str, expected: float) -> None:
    known = replace(model, gradients=replace(model.gradients, view=False))  # type: ignore[type-var]
    assert step_ms(changed(known, text)) == pytest.approx(FIXED + expected, rel=1e-9)


def test_compression_is_an_upper_bound_and_scale_an_estimate(model: Model) -> None:
    assert FREE_CODING in changed(model, "ddp.comm_hook=powersgd").assumptions
    assert {FREE_CODING, HALVES} <= set(changed(model, "ddp.comm_hook=quantize").assumptions)
    larger = changed(model, "world_size=4")
    assert ESTIMATE in larger.assumptions
    assert larger.widen == 2


def test_what_powersgd_does_not_compress_is_a_message_of_its_own() -> None:
    # A bias of 1000 elements, 4 kB; a matrix of 10 x 4 is not worth it: 2 * (10 + 4) elements are no less than 40.
    # ... of 100 x 100: 200 elements, 800 B. Three messages of 3 * 2 ms + 10 ns/B * (4000 + 40 * 4 + 800) bytes.
    shapes = [(1000,), (2, 20), (100, 100)]
    model = ddp_model([4000, 160, 40_000], 2, 10, 50, shapes=shapes)
    assert step_ms(changed(model, "ddp.comm_hook=powersgd")) == pytest.approx(FIXED + 50 + 6 + 4960e-5)


def test_a_measured_all_gather_is_believed(model: Model) -> None:
    own = replace(model.links[0], lines={**model.links[0].lines, "all_gather": exact_line(0.5 * MS, 4)})
    gathered = changed(replace(model, links=(own,)), "ddp.comm_hook=quantize")
    assert step_ms(gathered) == pytest.approx(FIXED + 50 + 2 * 0.5 + 250_016 * 4e-6)
    assert HALVES not in gathered.assumptions


def test_without_the_search_buckets_are_laid_out_anew_and_no_map_is_reduced() -> None:
    # By registration {0, 1} of 600 kB and {2, 3} of 400 kB: the second is ready at 20 ms, the first at 50 and takes
    # 2 + 6 ms; then the map of 4 * 4 bytes, 2 ms. Anew: {3, 2, 1} at 35 ms (2 + 7), {0} at 50 (2 + 3).
    searching = replace(cap(0.5e6), find_unused_parameters=True)
    model = ddp_model([300 * KB, 300 * KB, 300 * KB, 100 * KB], 2, 10, 50, searching)
    assert step_ms(model) == pytest.approx(FIXED + 50 + 8 + 2.00016)
    for text in ("ddp.find_unused_parameters=0", "ddp.static_graph=1"):
        after = changed(model, text)
        assert step_ms(after) == pytest.approx(FIXED + 50 + 5)
        assert not [node for node in after.nodes if node.part == USED_MAP]
    again = changed(changed(model, "ddp.static_graph=1"), "ddp.static_graph=0")
    assert step_ms(again) == pytest.approx(step_ms(model))


def test_the_search_costs_a_map(model: Model) -> None:
    # Behind the last bucket, which ends at 57 ms: 2 ms + 20 * 4 B * 10 ns/B.
    after = changed(model, "ddp.find_unused_parameters=1")
    assert step_ms(after) == pytest.approx(FIXED + 57 + 2 + 0.0008)


def test_unused_parameters_need_the_search() -> None:
    model = ddp_model(SIZES, 2, 10, 50, replace(cap(0.5e6), find_unused_parameters=True))
    assert model.gradients is not None
    partly = replace(model, gradients=replace(model.gradients, order=model.gradients.order[:-2]))
    assert "2 parameters had no gradient" in refused(partly, "ddp.find_unused_parameters=0")


def test_buffers_need_not_be_sent(model: Model) -> None:
    sending = with_buffers(model, 12)
    assert step_ms(sending) == pytest.approx(FIXED + 57 + 12)
    assert step_ms(changed(sending, "ddp.broadcast_buffers=0")) == pytest.approx(FIXED + 57)
    assert step_ms(changed(sending, "ddp.broadcast_buffers=0,ddp.comm_hook=fp16")) == pytest.approx(FIXED + 54.5)
    assert changed(sending, "ddp.broadcast_buffers=1") is sending
    assert changed(model, "ddp.broadcast_buffers=0") is model
    assert "only by a run that does" in refused(model, "ddp.broadcast_buffers=1")


def test_models_are_averaged_at_the_slowest_ranks_pace() -> None:
    model = ddp_model(SIZES, 2, 10, 50, late_ms=[0, 0, 30, 0])
    assert step_ms(changed(model, "sync.period=11")) == pytest.approx(FIXED + 80 + 2)
    # Ranks that are late in turn, every other step by 30 ms: over two steps all are equally late.
    turn = ddp_model(SIZES, 2, 10, 50)
    late = turn.low_ns.copy()
    late[:, 0, ::2] += 30 * MS
    late[:, 1, 1::2] += 30 * MS
    turning = replace(turn, low_ns=late, high_ns=late)
    assert step_ms(changed(turning, "sync.period=2")) == pytest.approx(FIXED + 15 + 50 + 11)


def hosts_model() -> Model:
    """Two hosts of two ranks: within one 0.1 ms + 1 ns/B, between them 1 ms + 4 ns/B, over all 2 ms + 10 ns/B."""
    model = ddp_model(SIZES, 2, 10, 50, cap(0.5e6), late_ms=[0] * 4)
    inner = exact_line(0.1 * MS, 1)
    links = (
        replace(model.links[0], hosts=(2, 2)),
        replace(link(all_gather=inner, reduce_scatter=inner), members=(0, 1), hosts=(2,)),
        replace(link(all_reduce=exact_line(1 * MS, 4)), members=(0, 2), hosts=(1, 1)),
    )
    return replace(model, links=links)


def test_a_hierarchy_takes_what_its_parts_were_measured_to_take() -> None:
    # 2 * (0.1 + 0.5) ms within the host and 1 ms + 4 ns/B * 250 kB between: 3.2 ms of the last bucket are exposed.
    after = changed(hosts_model(), "allreduce.hierarchical=2")
    assert step_ms(after) == pytest.approx(FIXED + 50 + 3.2)
    assert after.widen == 2
    # Half the bytes: 2 * (0.1 + 0.25) + 1 + 0.5 ms.
    assert step_ms(changed(hosts_model(), "allreduce.hierarchical=2,ddp.comm_hook=fp16")) == pytest.approx(FIXED + 52.2)


def test_hosts_are_counted_where_they_are_known() -> None:
    machines = {rank: "ab"[rank // 2] for rank in range(4)}
    assert _hosts((0, 1, 2, 3), machines) == (2, 2)
    assert _hosts((0, 2), machines) == (1, 1)
    assert _hosts((0, 1, 4), machines) == ()


def test_a_hierarchy_that_was_not_measured_is_refused(model: Model) -> None:
    assert "no all_reduce spans" in refused(model, "allreduce.hierarchical=2")
    whole = hosts_model()
    assert "no all_reduce spans" in refused(whole, "allreduce.hierarchical=4")
    assert "within a host" in refused(replace(whole, links=whole.links[::2]), "allreduce.hierarchical=2")
    assert "one rank of each host" in refused(replace(whole, links=whole.links[:2]), "allreduce.hierarchical=2")


def test_micro_batches_without_reduction_reduce_no_map() -> None:
    # Of two backwards one reduces: 22 ms of gradients and 2.0008 ms of the map, hidden by nothing.
    model = ddp_model(SIZES, 2, 10, 50, replace(cap(1e9), find_unused_parameters=True), rounds=2)
    assert step_ms(model) == pytest.approx(FIXED + 2 * (50 + 22 + 2.0008))
    assert step_ms(changed(model, "ddp.no_sync_every=2")) == pytest.approx(FIXED + 100 + 22 + 2.0008)
    # Every fourth: half of the steps.
    assert step_ms(changed(model, "ddp.no_sync_every=4")) == pytest.approx(FIXED + 100 + (22 + 2.0008) / 2)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("ddp.gradient_as_bucket_view=1", "was not measured"),
        ("sync.period=4,ddp.bucket_cap_mb=1", "no gradients are reduced"),
        ("world_size=4,allreduce.hierarchical=2", "try one at a time"),
        ("ddp.comm_hook=quantize,wire.dtype=fp16", "is not known"),
        ("fsdp.reshard_after_forward=0", "no FSDP2 model"),
        ("fsdp.prefetch=2", "no FSDP2 model"),
        ("fsdp.unit_merge=2", "no FSDP2 model"),
        ("fsdp.reduce_dtype=bf16", "no FSDP2 model"),
        ("fsdp.shard_size=2", "no FSDP2 model"),
    ],
)
def test_what_cannot_be_told_is_refused_with_a_reason(model: Model, text: str, says: str) -> None:
    assert says in refused(model, text)


def test_counts_are_swept_in_whole_numbers() -> None:
    assert [str(each) for each in _swept("sync.period=1:8:4")] == [f"sync.period={count}" for count in (1, 2, 4, 8)]


def test_part_groups_do_not_grow(model: Model) -> None:
    part = replace(model.links[0], members=(0,))
    assert "part of the ranks" in refused(replace(model, links=(part,)), "world_size=4")


def test_a_line_that_is_not_known_refuses_what_needs_it(model: Model) -> None:
    nodes = tuple(replace(node, lines=("one size only",)) for node in model.nodes)
    unknown = replace(model, nodes=nodes, links=(replace(model.links[0], lines={}),))
    for text in ("world_size=4", "sync.period=2", "ddp.comm_hook=quantize", "ddp.comm_hook=powersgd"):
        assert "not known" in refused(unknown, text)
    assert changed(unknown, "world_size=2") is unknown


# --- laws -------------------------------------------------------------------------------------------------------

models = st.builds(
    ddp_model,
    sizes=st.lists(st.integers(1, 500), min_size=1, max_size=12).map(lambda sizes: [KB * size for size in sizes]),
    alpha_ms=st.floats(0, 5),
    ns_per_byte=st.floats(0.1, 50),
    backward_ms=st.floats(1, 100),
    settings=st.builds(
        lambda size, search: replace(BucketSettings(bucket_cap_mb=size), find_unused_parameters=search),
        st.floats(0.01, 2),
        st.booleans(),
    ),
    late_ms=st.lists(st.floats(0, 40), min_size=2, max_size=4),
    steps=st.just(5),
)


@given(model=models, takes=st.floats(0, 20))
@settings(max_examples=50, deadline=None)
def test_without_broadcasts_no_step_is_slower(model: Model, takes: float) -> None:
    sending = with_buffers(model, takes)
    after = changed(sending, "ddp.broadcast_buffers=0")
    assert not [node for node in after.nodes if node.part == BUFFERS]
    assert step_ms(after) <= step_ms(sending) + SLACK


@given(model=models, data=st.data())
@settings(max_examples=50, deadline=None)
def test_without_one_of_its_collectives_no_step_is_slower(model: Model, data: st.DataObject) -> None:
    dropped = data.draw(st.integers(0, len(model.nodes) - 1))
    assert step_ms(without(model, [dropped])) <= step_ms(model) + SLACK


@given(model=models, text=st.sampled_from(["ddp.find_unused_parameters={}", "ddp.static_graph={}"]))
@settings(max_examples=50, deadline=None)
def test_what_is_so_already_gains_nothing(model: Model, text: str) -> None:
    assert model.gradients is not None
    flags = model.gradients.settings
    now = flags.find_unused_parameters if "unused" in text else flags.static_graph
    for same in (text.format(int(now)), f"world_size={model.step_ns.shape[0]}"):
        predicted, _ = predict(replay(model), changed(model, same))
        assert predicted.gain_ms == 0
        assert predicted.low_ms <= 0 <= predicted.high_ms


@given(model=models)
@settings(max_examples=50, deadline=None)
def test_averaging_every_step_is_no_better_than_one_bucket_behind_backward(model: Model) -> None:
    behind = changed(model, "overlap=none,ddp.bucket_cap_mb=1e6,ddp.find_unused_parameters=0")
    assert step_ms(changed(model, "sync.period=1")) >= step_ms(behind) - SLACK


@given(model=models)
@settings(max_examples=50, deadline=None)
def test_averaging_hardly_ever_leaves_the_slowest_ranks_own_work(model: Model) -> None:
    slowest = float(model.low_ns[-1].max()) / MS
    rare = [step_ms(changed(model, f"sync.period={period}")) for period in (4, 64, 10**8)]
    assert rare == sorted(rare, reverse=True)
    assert rare[-1] == pytest.approx(slowest, abs=1e-4)


@given(model=models, more=st.integers(0, 6))
@settings(max_examples=50, deadline=None)
def test_more_ranks_are_never_faster(model: Model, more: int) -> None:
    now = model.step_ns.shape[0]
    assert step_ms(changed(model, f"world_size={now + more}")) >= step_ms(model) - SLACK


@given(
    model=models,
    text=st.sampled_from(
        [
            "ddp.find_unused_parameters=0",
            "ddp.static_graph=1,ddp.bucket_cap_mb=0.3",
            "ddp.comm_hook=quantize",
            "sync.period=1",
            "sync.period=3",
            "sync.period=3,link.bandwidth=x2,imbalance.remove=1",
            "world_size=1",
            "world_size=16,link.latency=x0.5",
        ]
    ),
)
@settings(max_examples=80, deadline=None)
def test_no_gain_exceeds_its_ceiling(model: Model, text: str) -> None:
    check_ceiling(model, changed(model, text))


# --- recorded runs ----------------------------------------------------------------------------------------------


def test_a_recorded_broadcast_of_buffers_is_stood_still_for(tmp_path: Path) -> None:
    sizes = [100 * KB] * 10 + [900 * KB, 200 * KB]
    truths = ddp_truths(sizes, 2, 10, 60, cap(0.5e6), buffers_ms=8)
    found = simulator_of(commlens.open_run(write_run(tmp_path / "run", truths)))
    assert found.baseline is not None
    assert found.baseline.replayed_ns / MS == pytest.approx(
        step_ms(ddp_model(sizes, 2, 10, 60, cap(0.5e6))) + 8, abs=1e-3
    )
    scenario = found.scenario(parse_all("ddp.broadcast_buffers=0"))
    assert scenario.predicted is not None
    assert scenario.predicted.gain_ms == pytest.approx(8, abs=1e-3)
    asked = {str(change) for each in usual_sets(found) for change in each}
    assert "ddp.broadcast_buffers=0" in asked
    assert "ddp.find_unused_parameters=0" not in asked


def test_an_operation_of_one_size_is_split_as_another_of_its_group() -> None:
    # An all_reduce of 2 ranks takes 2 (p-1) = 2 latencies and 2 (p-1)/p = 1 times the bytes, a broadcast 1 and 1: from
    # 2 ms + 10 ns/B, 1 ms + 10 ns/B. Of a broadcast of 100 kB that took 4 ms, not 2, half is latency.
    like = carried_over(exact_line(2 * MS, 10), "all_reduce", "broadcast", 2)
    assert like is not None
    met = meeting(like, np.full(9, 100 * KB), np.full(9, 4_000_000))
    assert met is not None
    assert (met.alpha_ns[0], met.beta[0]) == pytest.approx((2 * MS, 20))
    assert met.alpha_ns + met.beta * 100 * KB == pytest.approx(4 * MS)
    assert carried_over(exact_line(1, 1), "all_reduce", "send", 2) is None


def test_a_faster_link_is_predicted_where_buffers_have_one_size(tmp_path: Path) -> None:
    truths = ddp_truths([100 * KB] * 10 + [900 * KB, 200 * KB], 2, 10, 60, cap(0.5e6), buffers_ms=8)
    found = simulator_of(commlens.open_run(write_run(tmp_path / "run", truths)))
    scenario = found.scenario(parse_all("link.bandwidth=x2"))
    assert scenario.predicted is not None
    assert any("seen in one size" in text for text in scenario.assumptions)


def test_a_recorded_search_for_unused_parameters_is_told_from_gradients(tmp_path: Path) -> None:
    searching = replace(cap(0.5e6), find_unused_parameters=True)
    sizes = [300 * KB, 300 * KB, 300 * KB, 100 * KB]
    truths = ddp_truths(sizes, 2, 10, 50, searching)
    found = simulator_of(commlens.open_run(write_run(tmp_path / "run", truths)))
    same = ddp_model(sizes, 2, 10, 50, searching)
    assert found.baseline is not None
    assert [node.part for node in found.baseline.model.nodes] == ["", "", USED_MAP]
    assert found.baseline.replayed_ns / MS == pytest.approx(step_ms(same), abs=1e-3)
    scenario = found.scenario(parse_all("ddp.find_unused_parameters=0"))
    assert scenario.predicted is not None
    assert scenario.predicted.step_ms == pytest.approx(FIXED + 50 + 5, rel=0.01)
    assert {str(change) for each in usual_sets(found) for change in each} >= {"ddp.find_unused_parameters=0"}
