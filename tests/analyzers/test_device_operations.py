"""What NCCL's profiler plugin knows, in a report: choices, proxy waits, replays, coverage, and doubt."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from synthetic import MS, START, US, RankTruth, training_rank, without_phases, write_run

from commlens import analyze, open_run
from commlens.analyzers import Report
from commlens.analyzers.across.transfers import ALIGNED, CLOCK_FREE
from commlens.analyzers.device_operations import WAITS
from commlens.render.report import print_report
from commlens.render.words import open_console
from commlens.trace.schema import DEVICE_CLOCKS, DEVICE_STATES, DTYPES, MISSING, OPS

STEPS, ANALYSED = 6, 4
STEP = 100 * MS


@dataclass(frozen=True)
class Operation:
    """One row of `device_ops`; `waits` in the order of `WAITS`."""

    event: int
    bytes: int
    enqueued_ns: int
    start_ns: int = MISSING
    end_ns: int = MISSING
    op: str = "all_reduce"
    group: str | None = "0"
    algorithm: str | None = "RING"
    protocol: str | None = "SIMPLE"
    channels: int = 24
    error_ns: int = 2 * US
    clock: str = "device"
    state: str = "ended"
    graph: int = 0
    copy_engine: int = 0
    waits: tuple[int, ...] | None = None
    moved: int = 0

    @property
    def numbers(self) -> dict[str, int]:
        waits = self.waits or (MISSING,) * len(WAITS)
        moved = MISSING if self.waits is None else self.moved
        device = MISSING if self.end_ns == MISSING else self.end_ns - self.start_ns
        own = ("event", "bytes", "enqueued_ns", "start_ns", "end_ns", "channels", "error_ns", "graph", "copy_engine")
        return {
            **{name: getattr(self, name) for name in own},
            **{f"{name}_ns": value for name, value in zip(WAITS, waits, strict=True)},
            **dict.fromkeys(("sent_bytes", "received_bytes"), moved),
            **dict.fromkeys(("peer", "seq", "message", "steps"), MISSING),
            "device_ns": device,
        }


def operation_columns(rows: Sequence[Operation]) -> dict[str, Any]:
    """Columns for `RankWriter.append`."""
    numbers = {name: np.array([row.numbers[name] for row in rows], np.int64) for name in rows[0].numbers}
    fixed = {"op": OPS, "clock": DEVICE_CLOCKS, "state": DEVICE_STATES}
    words = {name: _named([getattr(row, name) for row in rows], list(known)) for name, known in fixed.items()}
    for name in ("group", "algorithm", "protocol"):
        found = [getattr(row, name) for row in rows]
        words[name] = _named(found, sorted({each for each in found if each is not None}))
    none = np.zeros(len(rows), np.int64)
    others = {"communicator": (none, ["0xabc"]), "name": (none, [""]), "dtype": (none, list(DTYPES))}
    return {**numbers, **words, **others, "order": np.arange(len(rows))}


def _named(found: Sequence[str | None], words: list[str]) -> tuple[Any, list[str]]:
    return np.array([MISSING if each is None else words.index(each) for each in found], np.int64), words


def on_device(truth: RankTruth | None = None) -> RankTruth:
    """A rank of six steps whose two collectives a step (1 and 2 kB) a device timed."""
    truth = truth or training_rank(STEPS)
    return replace(truth, collectives=[replace(row, timing="device") for row in truth.collectives])


def seen(truth: RankTruth, **changes: Any) -> list[Operation]:
    """The operation of each of its collectives."""
    return [
        Operation(event, row.in_bytes, row.issued_ns + US, row.started_ns, row.completed_ns, **changes)
        for event, row in enumerate(truth.collectives)
    ]


def with_operations(truth: RankTruth, rows: Sequence[Operation]) -> RankTruth:
    return replace(truth, device_ops=operation_columns(rows))


def report_of(path: Path, ranks: dict[int, RankTruth]) -> Report:
    report = analyze(open_run(write_run(path, ranks, backend="nccl")))
    assert json.loads(json.dumps(report.to_dict(), allow_nan=False)) == report.to_dict()
    return report


def text_of(report: Report, width: int = 80) -> list[str]:
    stream = StringIO()
    print_report(report, open_console(stream, width))
    lines = stream.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    return lines


def prose(report: Report, width: int = 80) -> str:
    return " ".join(" ".join(text_of(report, width)).split())


def one_each(changes: dict[int, dict[str, Any]], ranks: int = 2) -> dict[int, RankTruth]:
    """Ranks whose operations are as usual but for the changes, by event."""
    truth = on_device()
    rows = [replace(row, **changes.get(row.event, {})) for row in seen(truth)]
    return {rank: with_operations(truth, rows) for rank in range(ranks)}


# ---- choices ----


def test_the_most_frequent_choice_of_each_line(tmp_path: Path) -> None:
    """Events 4, 6, ... are the 1 kB all_reduces of analysed steps; what came before does not count."""
    tree = {"algorithm": "TREE", "protocol": "LL", "channels": 2}
    report = report_of(tmp_path, one_each({0: tree, 2: tree, 4: tree}))
    small, large = sorted(report.collectives, key=lambda line: line.bytes or 0)
    assert small.nccl is not None
    assert large.nccl is not None
    assert (small.nccl.algorithm, small.nccl.protocol, small.nccl.channels) == ("RING", "SIMPLE", 24)
    assert (small.nccl.share, small.nccl.operations, small.nccl.graph) == (0.75, 2 * ANALYSED, 0)
    assert large.nccl.share == 1
    told = prose(report)
    assert "by RING, SIMPLE, 24 channels (75 %)" in told
    assert "all_reduce 2.0 kB by RING, SIMPLE, 24 channels" in told


def test_messages_have_no_algorithm(tmp_path: Path) -> None:
    truth = on_device(training_rank(STEPS, collectives=1))
    rows = seen(truth, algorithm=None, protocol=None, channels=2)
    report = report_of(tmp_path, {0: with_operations(truth, rows)})
    (line,) = report.collectives
    assert line.nccl is not None
    assert (line.nccl.algorithm, line.nccl.protocol, line.nccl.channels) == (None, None, 2)
    assert "NCCL:" not in prose(report)


def test_without_the_plugin_nothing_is_said(tmp_path: Path) -> None:
    report = report_of(tmp_path, {rank: training_rank(STEPS) for rank in range(2)})
    assert {line.nccl for line in report.collectives} == {None}
    assert report.nccl_waits == report.nccl_replays == ()
    assert report.coverage.device_times is None
    assert "NCCL" not in prose(report)


# ---- proxy waits ----

WAITED = (7 * MS, 5 * MS, 3 * MS, 11 * MS, MS, 2 * MS)


def test_waits_of_network_proxies_a_step(tmp_path: Path) -> None:
    truth = on_device()
    rows = seen(truth, waits=WAITED, moved=1000)
    report = report_of(tmp_path, {0: with_operations(truth, rows), 1: with_operations(truth, seen(truth))})
    (line,) = report.nccl_waits
    assert (line.rank, line.group, line.per, line.operations) == (0, "0", "step", 2)
    assert [getattr(line, f"{name}_ms") for name in WAITS] == [14, 10, 6, 22, 2, 4]
    assert (line.sent_bytes, line.received_bytes) == (2000, 2000)
    table = [row.split() for row in text_of(report) if row.strip().startswith("0 ")]
    assert ["0", "14.0", "10.0", "6.00", "22.0", "2.00", "4.00"] in [row[:7] for row in table]


def test_a_version_that_does_not_tell_a_wait_has_none(tmp_path: Path) -> None:
    truth = on_device()
    rows = seen(truth, waits=(7 * MS, 0, 3 * MS, 11 * MS, 0, 2 * MS), clock="kernel_seen", error_ns=MISSING)
    (line,) = report_of(tmp_path, {0: with_operations(truth, rows)}).nccl_waits
    assert line.send_peer_ms is None
    assert line.recv_flush_ms == 0


def test_without_steps_waits_are_of_the_whole_recording(tmp_path: Path) -> None:
    truth = replace(on_device(training_rank(2)), phases=())
    report = report_of(tmp_path, {0: with_operations(truth, seen(truth, waits=WAITED))})
    (line,) = report.nccl_waits
    assert (line.per, line.send_gpu_ms) == ("recording", 4 * 7)
    assert "ms over the whole recording" in prose(report)


# ---- graphs ----


def replays(truth: RankTruth) -> list[Operation]:
    """Three all_gathers of 512 B a rank in each step, which no collective's row tells of."""
    times = [START + step * STEP + 50 * MS + each * MS for step in range(STEPS) for each in range(3)]
    gather = {"op": "all_gather", "graph": 1}
    return [Operation(MISSING, 512, time, time, time + 2 * MS, **gather) for time in times]


def test_what_graphs_replayed_is_reported_apart(tmp_path: Path) -> None:
    truth = on_device()
    graphs = {"captured": 1, "replays": 6, "collectives_captured": 3}
    truth = replace(with_operations(truth, [*seen(truth), *replays(truth)]), info={"cuda_graphs": graphs})
    report = report_of(tmp_path, {0: truth, 1: truth})
    (line,) = report.nccl_replays
    assert (line.group, line.op, line.bytes, line.per) == ("0", "all_gather", 1024, "step")
    assert (line.ranks, line.operations, line.device_ms) == (2, 3, 6)
    assert {each.nccl.graph for each in report.collectives if each.nccl} == {0}
    assert report.coverage.device_times is not None
    assert (report.coverage.device_times.replayed, report.coverage.device_times.unmatched) == (36, 0)
    (why,) = (each.reason for each in report.abstentions if each.analysis == "graph-replays")
    assert "3 at most" in why
    assert "plugin saw 36 operations of their replays" in why
    assert "a step 3 a rank, of 3.1 kB, 6.00 ms of device time" in prose(report)


def test_replays_are_told_though_no_capture_was_seen(tmp_path: Path) -> None:
    truth = on_device()
    report = report_of(tmp_path, {0: with_operations(truth, [*seen(truth), *replays(truth)])})
    (why,) = (each.reason for each in report.abstentions if each.analysis == "graph-replays")
    assert "18 operations" in why
    assert "rank 0" in why


def test_a_line_says_how_often_graphs_replayed_the_like(tmp_path: Path) -> None:
    truth = on_device()
    like = [replace(row, op="all_reduce", bytes=1024) for row in replays(truth)]
    report = report_of(tmp_path, {0: with_operations(truth, [*seen(truth), *like])})
    found = {line.bytes: line.nccl.graph for line in report.collectives if line.nccl}
    assert found == {1024: 3 * ANALYSED, 2048: 0}


# ---- coverage ----


def test_who_told_device_times_and_how_surely(tmp_path: Path) -> None:
    """Event 0 is not told by the plugin, event 1 by nobody."""
    truth = on_device()
    rows = list(truth.collectives)
    rows[1] = replace(rows[1], timing="enqueue_only", started_ns=MISSING, completed_ns=MISSING)
    truth = replace(truth, collectives=rows)
    operations = seen(truth)
    operations[1] = replace(operations[1], start_ns=MISSING, end_ns=MISSING, clock="none", copy_engine=1)
    sure = [replace(row, error_ns=row.event * US) for row in operations[1:]]
    report = report_of(tmp_path, {0: with_operations(truth, sure)})
    cover = report.coverage.device_times
    assert cover is not None
    assert (cover.collectives, cover.by_plugin, cover.in_windows, cover.unknown) == (12, 10, 1, 1)
    assert (cover.operations, cover.copy_engine, cover.error_us_p50, cover.error_us_p95) == (11, 1, 6, 10.5)
    told = prose(report)
    assert "of 11 of 12 collectives: 10 by NCCL's plugin (half of them right to 6 us), 1 in deep windows" in told
    assert "1 operation of NCCL moved by copy engines, which tell no times" in told


def test_operations_that_were_not_seen_are_noted(tmp_path: Path) -> None:
    ends = {"end_ns": MISSING}
    contradicts = {"clock": "contradictory", "start_ns": MISSING, **ends}
    truths = one_each({3: {"state": "cut_off", **ends}, 5: {"state": "unseen", **ends}, 7: contradicts}, ranks=1)
    tallies = {"operations": 15, "no_slot": 2, "no_room": 1, "no_step": 9, "foreign": 4, "error": 28, "late": 0}
    report = report_of(tmp_path, {0: replace(truths[0], info={"nccl_plugin": tallies})})
    notes = " ".join(report.coverage.notes)
    assert "3 dropped for want of room, 1 cut off as their communicator ended, 1 not seen to their end" in notes
    assert "1 whose clocks contradict each other" in notes
    assert "9 steps of network proxies had no room, 4 are other processes'" in notes
    assert "rank 0: NCCL's operations could not all be written: No space left on device" in notes
    assert report.coverage.device_times is not None
    assert report.coverage.device_times.by_plugin == 9


@pytest.mark.parametrize("junk", [None, 3, [], {"no_slot": "x", "error": None, "foreign": [1]}])
def test_damaged_tallies_are_no_error(tmp_path: Path, junk: Any) -> None:
    truths = one_each({}, ranks=1)
    report = report_of(tmp_path, {0: replace(truths[0], info={"nccl_plugin": junk})})
    assert report.coverage.device_times is not None
    assert report.coverage.device_times.dropped == 0


# ---- doubt ----


def test_errors_of_device_clocks_count_against_comparing_ranks(tmp_path: Path) -> None:
    truth = on_device()
    truth = replace(truth, collectives=[replace(row, group_size=3) for row in truth.collectives])
    ranks = {rank: with_operations(truth, seen(truth, error_ns=(rank + 1) * 3 * US)) for rank in range(3)}
    report = report_of(tmp_path, ranks)
    assert report.coverage.clock.uncertainty_us == 15  # the two worst
    assert report.coverage.clock.method.endswith("device clocks by NCCL's plugin")
    assert {line.bandwidth_basis for line in report.collectives} == {ALIGNED}


def test_where_they_are_too_large_durations_must_do(tmp_path: Path) -> None:
    truth = on_device()
    ranks = {rank: with_operations(truth, seen(truth, error_ns=5 * MS)) for rank in range(2)}
    report = report_of(tmp_path, ranks)
    assert report.coverage.clock.refusal is None
    assert {line.bandwidth_basis for line in report.collectives} == {CLOCK_FREE}


def test_one_rank_has_nothing_to_be_compared_with(tmp_path: Path) -> None:
    assert report_of(tmp_path, one_each({}, ranks=1)).coverage.clock.uncertainty_us == 0


def test_times_that_are_only_bounds_are_not_compared(tmp_path: Path) -> None:
    truth = on_device()
    sides = [seen(truth), seen(truth, clock="device_late", error_ns=MISSING)]
    report = report_of(tmp_path, {rank: with_operations(truth, rows) for rank, rows in enumerate(sides)})
    assert "rank 1 are bounds" in (report.coverage.clock.refusal or "")
    assert {line.wait_ms_p50 for line in report.collectives} == {None}
    assert {line.bandwidth_basis for line in report.collectives} == {CLOCK_FREE}
    assert report.coverage.device_times is not None
    assert report.coverage.device_times.clocks == {"device": 2 * STEPS, "device_late": 2 * STEPS}


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_page_fits(width: int, tmp_path: Path) -> None:
    truth = on_device(without_phases(training_rank(STEPS)))
    rows = seen(truth, waits=tuple(1000 * each for each in WAITED), moved=10**9)
    names = [f"a group with a long name {rank}" for rank in range(3)]
    ranks = {r: with_operations(truth, [replace(row, group=name) for row in rows]) for r, name in enumerate(names)}
    told = text_of(report_of(tmp_path, ranks), width)
    assert sum("a group with" in line for line in told) == 3
    assert sum("22000" in line for line in told) == 3
