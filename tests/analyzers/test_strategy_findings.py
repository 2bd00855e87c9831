"""Faults of strategy on runs whose every number is chosen: found with the right price, and not in a healthy twin.

A step of 120 ms: 10 other, forward to 40, backward to 100 (its last part waiting, where it does), optimizer to 120.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from synthetic import MS, START, Collective, Phase, RankTruth, write_run

import commlens
from commlens import Finding
from commlens.analyzers.whatif.asked import simulator_of
from commlens.analyzers.whatif.coefficients import Line
from commlens.trace.change_kinds import RISKS
from commlens.trace.changes import applicable, parse, parse_all
from commlens.trace.schema import MISSING

STEP_MS, STEPS = 120, 8
FORWARD, BACKWARD = (10.0, 40.0), (40.0, 100.0)
KB, MB = 1000, 1000 * 1000
STRATEGY = {
    "bucket-size", "no-overlap", "per-parameter-all-reduce", "redundant-sync", "wire-dtype", "buffer-broadcast",
    "find-unused", "fsdp-unit-size", "pipeline-bubble",
}  # fmt: skip


@dataclass(frozen=True)
class Row:
    """A collective of each step: ms from the step's start; `seen` where a hook saw the thread stand still for it."""

    start: float
    end: float
    bytes: int
    op: str = "all_reduce"
    dtype: str = "float32"
    seen: bool = False
    peer: int = MISSING
    seq: int = MISSING


def model(kind: str, sizes: Sequence[int], dtype: str = "float32", **more: Any) -> dict[str, Any]:
    item = 2 if "16" in dtype else 4
    parameters = [
        {"name": f"p{n}", "shape": [size // item], "dtype": dtype, "num_bytes": size, "trainable": True}
        for n, size in enumerate(sizes)
    ]
    group = "0" if kind == "DDP" else None
    return {
        "kind": kind,
        "name": "Net",
        "group": group,
        "flags": {},
        "bucket_bytes": [],
        "parameters": parameters,
    } | more


def ddp(buckets: Sequence[int], parameters: Sequence[int] | None = None, **more: Any) -> dict[str, Any]:
    flags = {"find_unused_parameters": False, "broadcast_buffers": True, "static_graph": False, "comm_hook": ""}
    sizes = parameters if parameters is not None else [sum(buckets) // 40] * 40
    own = model("DDP", sizes, bucket_bytes=list(buckets))
    return own | {"flags": flags | more.pop("flags", {})} | more


def rank(
    described: dict[str, Any],
    rows: Sequence[Row],
    backwards: Sequence[tuple[float, float]] = (BACKWARD,),
    first: Sequence[Row] = (),
    workers: int = 2,
) -> RankTruth:
    """A rank whose steps are all alike, but for the first where `first` says so; `workers` as of its Gloo group."""
    collectives, phases = [], []
    for step in range(STEPS):
        t = START + step * STEP_MS * MS
        for row in sorted(first if first and step == 0 else rows, key=lambda row: row.start):
            collectives.append(_collective(t, row))
        phases.append(Phase("forward", t + round(FORWARD[0] * MS), t + round(FORWARD[1] * MS), "Net"))
        phases += [Phase("backward", t + round(a * MS), t + round(b * MS)) for a, b in backwards]
        phases.append(Phase("optimizer", t + 105 * MS, t + STEP_MS * MS, "SGD"))
    group = {"name": "0", "desc": "default_pg", "ranks": [0, 1], "size": 2, "workers": workers}
    environment = {"TORCHELASTIC_RUN_ID": "x", "LOCAL_WORLD_SIZE": "2"}
    numbered = _numbered(collectives)
    info = {"models": [described], "groups": [group], "boot_id": "one", "host": "one", "environment": environment}
    return RankTruth(numbered, phases, info=info | {"end": {"how": "exit", "ns": START}})


def _collective(t: int, row: Row) -> Collective:
    start, end = t + round(row.start * MS), t + round(row.end * MS)
    still = {"waited_ns": start, "blocked_ns": end - start} if row.seen else {}
    return Collective(
        start, end, op=row.op, dtype=row.dtype, in_bytes=row.bytes, out_bytes=row.bytes, peer=row.peer, **still
    )


def _numbered(rows: Sequence[Collective]) -> list[Collective]:
    """Messages count for themselves, in each direction."""
    counts: dict[tuple[bool, str, int], int] = {}
    numbered = []
    for row in rows:
        direct = row.op in ("send", "recv")
        key = (direct, row.op if direct else "", row.peer if direct else 0)
        numbered.append(dataclasses.replace(row, seq=counts.get(key, 0)))
        counts[key] = counts.get(key, 0) + 1
    return numbered


def findings(tmp_path: Path, *ranks: RankTruth) -> dict[str, Finding]:
    both = ranks if len(ranks) == 2 else ranks * 2
    report = commlens.analyze(commlens.open_run(write_run(tmp_path / "run", dict(enumerate(both)))))
    found = {each.id: each for each in report.findings if each.id in STRATEGY}
    exposed = report.time_budget.exposed_ms or 0.0
    for each in found.values():
        check(each, exposed)
    return found


def check(finding: Finding, exposed_ms: float) -> None:
    """What every finding of strategy has."""
    assert finding.layer == "strategy" and finding.could_be_wrong_if and len(finding.evidence) > 1
    assert finding.ceiling_ms is not None and 0 < finding.ceiling_ms <= exposed_ms + 0.001
    for action in finding.actions:
        assert action.change and action.verify and action.risk in RISKS
        if action.fix is not None:
            assert applicable(parse(action.fix), "gloo")
            assert action.risk == parse(action.fix).risk


def value(finding: Finding, name: str) -> float:
    (found,) = [each.value for each in finding.evidence if each.name.startswith(name)]
    return found


def sent(count: int, bytes: int, each_ms: float, start: float = 60.0, step_ms: float = 0.0, **more: Any) -> list[Row]:
    """Collectives that run one after another, issued `step_ms` apart."""
    return [Row(start + n * step_ms, start + (n + 1) * each_ms, bytes, **more) for n in range(count)]


def test_tiny_buckets(tmp_path: Path) -> None:
    """20 buckets of 100 kB, 2 ms each, of which their bytes take 0.2: 40 ms from 60 on, all exposed."""
    described = ddp([100 * KB] * 20)
    whole = Row(60, 64, 2 * MB)  # the job's first message: 0.5 GB/s
    found = findings(tmp_path, rank(described, sent(20, 100 * KB, 2.0), first=[whole], workers=1))
    tiny = found["bucket-size"]
    assert "20 gradient buckets are too small (100 kB each)" in tiny.title
    assert value(tiny, "buckets per backward") == 20
    fix = tiny.actions[0].fix or ""
    assert fix.startswith("ddp.bucket_cap_mb=") and 0.1 < float(fix.partition("=")[2]) < 1
    exposed = value(tiny, "exposed transfer")
    assert exposed == pytest.approx(40, rel=0.01)
    share, cap = value(tiny, "of that latency") / 100, float(fix.partition("=")[2]) * 2**20
    assert tiny.ceiling_ms == pytest.approx(exposed * share * (1 - 100 * KB / cap), rel=0.05)
    assert f"--fix {fix} -- torchrun train.py" in (tiny.actions[0].verify or "")
    assert "small-collectives" not in found


def test_buckets_that_pay_for_their_bytes_are_not_too_small(tmp_path: Path) -> None:
    whole = Row(60, 99, 2 * MB)  # as slow for its bytes as they are
    assert not findings(tmp_path, rank(ddp([100 * KB] * 20), sent(20, 100 * KB, 2.0), first=[whole], workers=1))


@pytest.mark.parametrize("count", [9, 10])
def test_a_few_buckets_are_not_many(tmp_path: Path, count: int) -> None:
    whole = Row(60, 64, 2 * MB)
    found = findings(tmp_path, rank(ddp([100 * KB] * count), sent(count, 100 * KB, 2.0), first=[whole], workers=1))
    assert ("bucket-size" in found) == (count == 10)


def test_buckets_whose_best_speed_nobody_saw_are_left_alone(tmp_path: Path) -> None:
    assert not findings(tmp_path, rank(ddp([100 * KB] * 20), sent(20, 100 * KB, 2.0), workers=1))


def test_one_bucket_for_the_whole_model(tmp_path: Path) -> None:
    """20 MB issued at 80, there at 100: 20 ms, of which an eighth cannot be hidden."""
    described = ddp([20 * MB], flags={"bucket_bytes_cap": 2**30})
    found = findings(tmp_path, rank(described, [Row(80, 100, 20 * MB)]))
    giant = found["bucket-size"]
    assert "one DDP bucket of 20.0 MB holds the whole model" in giant.title
    assert value(giant, "bucket_cap_mb") == 1024
    assert giant.ceiling_ms == pytest.approx(20 * 7 / 8, rel=0.01)
    assert giant.actions[0].fix == "ddp.bucket_cap_mb=2.4"


@pytest.mark.parametrize(
    ("tiny_ms", "split"),
    [((0.15, 0.2), True), ((0.15,), False), ((3.0, 3.0), False)],
    ids=["told by the smallest messages", "one is not enough", "latency is too large to be rough about"],
)
def test_a_single_bucket_is_cut_where_small_messages_tell_the_latency(
    tmp_path: Path, tiny_ms: tuple[float, ...], split: bool
) -> None:
    """All_gathers of 8 bytes in the first step; an all_reduce of two ranks has twice their latency."""
    whole = Row(80, 100, 20 * MB)
    first = [*(Row(n, n + ms, 8, "all_gather") for n, ms in zip((0, 4), tiny_ms, strict=False)), whole]
    described = ddp([20 * MB], flags={"bucket_bytes_cap": 2**30, "bucket_bytes_cap_default": False})
    truth = rank(described, [whole], first=first, workers=1)
    run = commlens.open_run(write_run(tmp_path / "run", {0: truth, 1: truth}))
    simulator = simulator_of(run)
    assert simulator.baseline is not None
    line = simulator.baseline.model.links[0].lines["all_reduce"]
    (giant,) = (each for each in commlens.analyze(run).findings if each.id == "bucket-size")
    assert (giant.actions[0].predicted is not None) == isinstance(line, Line) == split
    if isinstance(line, Line):
        assert line.alpha_ns[0] == pytest.approx(0.3 * MS)
        assert (line.alpha_ns + line.beta * 20 * MB)[:9] == pytest.approx([20 * MS] * 9)
        assert line.alpha_ns.min() == pytest.approx(0.1 * MS, rel=0.1)
        assert line.alpha_ns.max() == pytest.approx(0.9 * MS, rel=0.1)
        best = simulator.scenario(parse_all("ddp.bucket_cap_mb=2.4"))
        assert best.predicted is not None and any("smallest messages" in each for each in best.assumptions)
        assert best.predicted.low_ms > 10


def test_backward_can_hide_no_more_than_it_computes(tmp_path: Path) -> None:
    found = findings(tmp_path, rank(ddp([20 * MB]), [Row(50, 100, 20 * MB)]))
    assert found["bucket-size"].ceiling_ms == pytest.approx(10, rel=0.01)


@pytest.mark.parametrize(
    "described",
    [
        ddp([10 * MB, 10 * MB]),
        ddp([900 * KB]),
        ddp([20 * MB], parameters=[15 * MB, 5 * MB]),
        model("module", [MB] * 20),
        model("DDP", [MB] * 20),
    ],
    ids=["two buckets", "a small model", "one large parameter", "no DDP", "buckets not known"],
)
def test_one_message_that_could_not_be_cut_is_no_giant_bucket(tmp_path: Path, described: dict[str, Any]) -> None:
    size = sum(described["bucket_bytes"]) or 20 * MB
    assert not findings(tmp_path, rank(described, [Row(80, 100, size)]))


def test_what_costs_next_to_nothing_is_no_finding(tmp_path: Path) -> None:
    for ms, expected in ((2.0, False), (4.0, True)):  # 2 % of a step are 2.4 ms
        found = findings(tmp_path / str(ms), rank(ddp([20 * MB]), [Row(100 - ms, 100, 20 * MB)]))
        assert ("bucket-size" in found) == expected


def test_a_rank_that_was_not_recorded_leaves_it_open(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", {0: rank(ddp([20 * MB]), [Row(80, 100, 20 * MB)])}, world_size=2)
    assert not commlens.analyze(commlens.open_run(run)).findings


def test_gradients_reduced_by_hand_after_backward(tmp_path: Path) -> None:
    described = model("module", [2 * MB] * 4)
    own = rank(described, [Row(82, 102, 8 * MB, seen=True), Row(103, 103.1, 4, seen=True)], backwards=[(40, 80)])
    by_hand = findings(tmp_path, own)["no-overlap"]
    assert by_hand.ceiling_ms == pytest.approx(20, rel=0.01)
    assert value(by_hand, "bytes of gradients") == 8 * MB + 4
    assert value(by_hand, "computing in backward") == pytest.approx(40)
    assert by_hand.actions[0].fix is None and "DistributedDataParallel" in by_hand.actions[0].change


@pytest.mark.parametrize(
    ("size", "start", "kind"),
    [(6 * MB, 82, "module"), (10 * MB, 82, "module"), (8 * MB, 60, "module"), (8 * MB, 82, "DDP")],
    ids=["less than the model", "more than the model", "in backward", "under DDP"],
)
def test_other_reductions_are_no_gradients_by_hand(tmp_path: Path, size: int, start: float, kind: str) -> None:
    own = rank(model(kind, [2 * MB] * 4), [Row(start, start + 20, size, seen=True)], backwards=[(40, 80)])
    assert not findings(tmp_path, own)


def test_an_all_reduce_for_each_parameter(tmp_path: Path) -> None:
    """20 parameters, 1 ms each after backward: in one message 4 ms, which backward hides."""
    rows = [Row(81 + n, 82 + n, 40 * KB if n % 2 else 4 * KB, seen=True) for n in range(20)]
    own = rank(model("module", [4 * KB, 40 * KB] * 10), rows, backwards=[(40, 80)])
    found = findings(tmp_path, own)
    each = found.pop("per-parameter-all-reduce")
    assert not found
    assert each.title == "each of the 20 parameters' gradients is all-reduced by itself, after backward"
    assert each.ceiling_ms == pytest.approx(20, rel=0.01)
    assert value(each, "of them issued after backward") == 20


def test_small_messages_have_one_cause(tmp_path: Path) -> None:
    rows = [Row(81 + n, 82 + n, 400, seen=True) for n in range(20)]
    for sizes, expected in (([400] * 20, "per-parameter-all-reduce"), ([800] * 20, "small-collectives")):
        own = rank(model("module", sizes), rows, backwards=[(40, 80)])
        run = write_run(tmp_path / expected, {0: own, 1: own})
        ids = [each.id for each in commlens.analyze(commlens.open_run(run)).findings]
        assert expected in ids and not {"per-parameter-all-reduce", "small-collectives"} - {expected} & set(ids)


@pytest.mark.parametrize("count", [9, 19, 20])
def test_only_one_for_each_of_many_parameters_counts(tmp_path: Path, count: int) -> None:
    rows = [Row(81 + n, 82 + n, 40 * KB, seen=True) for n in range(count)]
    own = rank(model("module", [40 * KB] * (9 if count == 9 else 20)), rows, backwards=[(40, 80)])
    assert ("per-parameter-all-reduce" in findings(tmp_path, own)) == (count == 20)


MICRO = [(40.0, 60.0), (62.0, 80.0), (82.0, 100.0)]


def buckets_of_micro_batches(in_which: Sequence[int]) -> list[Row]:
    return [Row(MICRO[n][1] - 6, MICRO[n][1], size) for n in in_which for size in (5 * MB, 6 * MB)]


def test_a_reduction_after_each_micro_batch(tmp_path: Path) -> None:
    own = rank(ddp([5 * MB, 6 * MB]), buckets_of_micro_batches((0, 1, 2)), backwards=MICRO)
    found = findings(tmp_path, own)["redundant-sync"]
    assert found.ceiling_ms == pytest.approx(12, rel=0.01)  # 6 ms in each of the first two
    assert value(found, "backwards per step") == 3
    assert value(found, "times that all buckets are sent") == 3
    assert value(found, "bytes sent before") == 22 * MB
    (action,) = found.actions
    assert action.fix is None and "--set ddp.no_sync_every=3" in (action.verify or "")


@pytest.mark.parametrize("in_which", [(2,), ()], ids=["under no_sync", "nothing sent"])
def test_accumulation_under_no_sync_is_healthy(tmp_path: Path, in_which: tuple[int, ...]) -> None:
    own = rank(ddp([5 * MB, 6 * MB]), [*buckets_of_micro_batches(in_which), Row(102, 103, 4)], backwards=MICRO)
    assert "redundant-sync" not in findings(tmp_path, own)


def test_two_optimizers_are_no_micro_batches(tmp_path: Path) -> None:
    own = rank(ddp([5 * MB, 6 * MB]), buckets_of_micro_batches((0, 1)), backwards=MICRO[:2])
    between = [
        Phase("optimizer", p.end_ns + MS // 4, p.end_ns + MS, "Other") for p in own.phases if p.phase == "backward"
    ]
    own = dataclasses.replace(own, phases=[*own.phases, *between])
    assert "redundant-sync" not in findings(tmp_path, own)


WIRE = [Row(80, 90, 10 * MB), Row(80.5, 100, 9 * MB)]


@pytest.mark.parametrize(("autocast", "fix"), [("bfloat16", "ddp.comm_hook=bf16"), ("float16", "ddp.comm_hook=fp16")])
def test_float32_on_the_wire_of_16_bit_computation(tmp_path: Path, autocast: str, fix: str) -> None:
    found = findings(tmp_path, rank(ddp([10 * MB, 9 * MB], autocast=autocast), WIRE))["wire-dtype"]
    assert found.actions[0].fix == fix and found.actions[0].risk == "lossy"
    assert value(found, "bytes of gradients sent") == 19 * MB
    assert found.ceiling_ms == pytest.approx((10 + 19.5) / 2, rel=0.02)  # half of both transfers, hidden or not


@pytest.mark.parametrize(
    ("more", "dtype"),
    [
        ({}, "float32"),
        ({"autocast": "bfloat16"}, "bfloat16"),
        ({"autocast": "bfloat16", "flags": {"comm_hook": "x"}}, "float32"),
    ],
    ids=["computed in float32", "sent as bfloat16", "with a hook of its own"],
)
def test_a_wire_as_wide_as_meant(tmp_path: Path, more: dict[str, Any], dtype: str) -> None:
    rows = [dataclasses.replace(row, dtype=dtype) for row in WIRE]
    assert "wire-dtype" not in findings(tmp_path, rank(ddp([10 * MB, 9 * MB], **more), rows))


def test_fsdp_that_gathers_in_16_bits_and_scatters_in_32(tmp_path: Path) -> None:
    rows = [Row(10.1 + n, 11 + n, MB, "all_gather", "bfloat16", seen=True) for n in range(2)]
    rows += [Row(60 + 10 * n, 68 + 10 * n, 2 * MB, "reduce_scatter", seen=True) for n in range(2)]
    found = findings(tmp_path, rank(model("FSDP2", [MB] * 4), rows))
    wide = found.pop("wire-dtype")
    assert not found and wide.ceiling_ms == pytest.approx(8, rel=0.01)
    assert "reduce_dtype=torch.bfloat16" in wide.actions[0].change and wide.actions[0].fix == "fsdp.reduce_dtype=bf16"
    narrow = [dataclasses.replace(row, dtype="bfloat16", bytes=row.bytes // 2) for row in rows]
    assert not findings(tmp_path / "narrow", rank(model("FSDP2", [MB] * 4), narrow))


BUFFERS = [Row(11, 17, 9 * MB, "broadcast", peer=0), Row(11.1, 12, 200, "broadcast", "int64", peer=0)]
REDUCED = [Row(80, 90, 10 * MB), Row(80.5, 82, 9 * MB)]


def test_buffers_are_broadcast_before_each_forward(tmp_path: Path) -> None:
    found = findings(tmp_path, rank(ddp([10 * MB, 9 * MB]), [*BUFFERS, *REDUCED]))["buffer-broadcast"]
    assert found.ceiling_ms == pytest.approx(5.9, rel=0.01)  # from the last issue on
    assert value(found, "broadcasts in forward") == 2 and value(found, "bytes they move") == 9 * MB + 200
    assert found.actions[0].fix == "ddp.broadcast_buffers=0"
    assert "commlens verify " in (found.actions[0].verify or "")


def test_broadcasts_that_ddp_does_not_ask_for(tmp_path: Path) -> None:
    off = ddp([10 * MB, 9 * MB], flags={"broadcast_buffers": False})
    assert "buffer-broadcast" not in findings(tmp_path / "off", rank(off, [*BUFFERS, *REDUCED]))
    outside = [dataclasses.replace(row, start=row.start - 9, end=row.end - 9) for row in BUFFERS]
    assert "buffer-broadcast" not in findings(tmp_path / "out", rank(ddp([10 * MB, 9 * MB]), [*outside, *REDUCED]))


SEARCHING = {"find_unused_parameters": True}
TABLE = Row(80.6, 95, 160, dtype="int32")  # of 40 parameters


def test_a_search_for_parameters_that_are_all_used(tmp_path: Path) -> None:
    described = ddp([10 * MB, 9 * MB], flags=SEARCHING, unused_bytes=[0, 0, 0])
    found = findings(tmp_path, rank(described, [*REDUCED, TABLE]))["find-unused"]
    assert found.ceiling_ms == pytest.approx(5, rel=0.01)  # from 90, when the last bucket is there
    assert value(found, "times DDP looked") == 3 and value(found, "all_reduces of which") == 1
    assert found.actions[0].fix == "ddp.find_unused_parameters=0" and found.actions[0].risk == "exact"


@pytest.mark.parametrize(("order", "held"), [(range(40), 9.5 * 6 / 19), (range(39, -1, -1), 0)])
def test_buckets_in_an_order_in_which_gradients_are_not_ready(
    tmp_path: Path, order: Sequence[int], held: float
) -> None:
    more = {"unused_bytes": [0] * 9, "ready_order": list(order)}
    described = ddp([6 * MB, 13 * MB], flags=SEARCHING, **more)
    found = findings(tmp_path, rank(described, [*REDUCED, TABLE]))["find-unused"]
    assert found.ceiling_ms == pytest.approx(5 + held, rel=0.01)


@pytest.mark.parametrize(
    "more",
    [
        {"unused_bytes": [0, 400, 0, 0], "flags": SEARCHING},
        {"unused_bytes": [0, 0], "flags": SEARCHING},
        {"flags": SEARCHING},
        {"unused_bytes": [0, 0, 0], "flags": SEARCHING | {"static_graph": True}},
        {"unused_bytes": [0, 0, 0]},
    ],
    ids=["some are unused", "looked too seldom", "nobody looked", "static graph", "no search"],
)
def test_a_search_that_finds_something_or_is_not_known(tmp_path: Path, more: dict[str, Any]) -> None:
    assert "find-unused" not in findings(tmp_path, rank(ddp([10 * MB, 9 * MB], **more), [*REDUCED, TABLE]))


def unit(count: int, size: int) -> list[Row]:
    gathers = [Row(10.1 + 2 * n, 12 + 2 * n, size // 2, "all_gather", seen=True) for n in range(count)]
    return [*gathers, *(Row(90 + n, 90.9 + n, size, "reduce_scatter", seen=True) for n in range(count))]


def test_fsdp_with_one_unit(tmp_path: Path) -> None:
    found = findings(tmp_path, rank(model("FSDP2", [MB] * 8), unit(1, 8 * MB)))["fsdp-unit-size"]
    assert found.ceiling_ms == pytest.approx(1.9 + 0.9, rel=0.01)
    assert value(found, "bytes of the unit") == 8 * MB and value(found, "parameters in the unit") == 8
    assert found.confidence == "low" and "over Gloo" in found.could_be_wrong_if[0]


@pytest.mark.parametrize(
    ("sizes", "rows"),
    [([MB] * 8, unit(2, 4 * MB)), ([MB] * 3, unit(1, 3 * MB)), ([5 * MB, MB, MB, MB], unit(1, 8 * MB))],
    ids=["two units", "few parameters", "one large parameter"],
)
def test_fsdp_with_units_or_nothing_to_make_them_of(tmp_path: Path, sizes: list[int], rows: list[Row]) -> None:
    assert "fsdp-unit-size" not in findings(tmp_path, rank(model("FSDP2", sizes), rows))


def stages(micro: int) -> tuple[RankTruth, RankTruth]:
    """Two stages that pass `micro` messages on and back; each waits 20 ms in all for the other."""
    each, gap = 40 / micro, 20 / micro
    first = [row for n in range(micro) for row in _passed(11 + n * 30 / micro, 50 + n * each, gap, sends_first=True)]
    second = [row for n in range(micro) for row in _passed(11 + n * 30 / micro, 50 + n * each, gap, sends_first=False)]
    backwards = [(50 + n * each + gap + 1 / micro, 50 + (n + 1) * each) for n in range(micro)]
    described = model("module", [MB] * 3)
    return rank(described, first, backwards), rank(described, second, backwards)


def _passed(forward: float, backward: float, gap: float, sends_first: bool) -> list[Row]:
    """A message to the other stage and one back; the receiver is there `gap` before the sender."""
    there, back = forward + gap / 4, backward + gap
    if sends_first:
        return [
            Row(there, there + 0.2, 4 * KB, "send", seen=True, peer=1),
            Row(backward, back + 0.2, 4 * KB, "recv", seen=True, peer=1),
        ]
    return [
        Row(forward, there + 0.2, 4 * KB, "recv", seen=True, peer=0),
        Row(back, back + 0.2, 4 * KB, "send", seen=True, peer=0),
    ]


@pytest.mark.parametrize(("micro", "bubble"), [(1, 50.0), (2, 33.3), (3, 25.0)])
def test_a_pipeline_with_few_micro_batches(tmp_path: Path, micro: int, bubble: float) -> None:
    found = findings(tmp_path, *stages(micro))["pipeline-bubble"]
    assert f"{micro} micro-batch" in found.title and "pipeline of 2 stages" in found.title
    assert value(found, "bubble of even stages") == bubble
    waited = value(found, "stages wait for messages")
    assert waited == pytest.approx((20 + 20 / 4) / 2, rel=0.02)
    assert found.ceiling_ms == pytest.approx(min(waited, bubble / 100 * STEP_MS), rel=0.01)
    assert "n_microbatches=8" in found.actions[0].change and found.ranks == (0, 1)


def test_a_pipeline_with_enough_micro_batches(tmp_path: Path) -> None:
    assert not findings(tmp_path, *stages(4))


def test_messages_that_make_no_pipeline(tmp_path: Path) -> None:
    one_way = tuple(
        dataclasses.replace(each, collectives=[row for row in each.collectives if row.op == kept])
        for each, kept in zip(stages(1), ("send", "recv"), strict=True)
    )
    assert not findings(tmp_path, *one_way)


def test_several_models_leave_it_open(tmp_path: Path) -> None:
    described = ddp([20 * MB])
    own = rank(described, [Row(80, 100, 20 * MB)])
    own = dataclasses.replace(own, info=own.info | {"models": [described, ddp([4 * KB])]})
    assert not findings(tmp_path, own)
