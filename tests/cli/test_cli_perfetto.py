"""`commlens export --to perfetto`: what is in the trace, and that its numbers are the report's."""

from __future__ import annotations

import itertools
import resource
import signal
import sys
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from blocking_job import even_job, slower
from command_line import commlens
from synthetic import MS, START, Collective, Kernel, RankTruth, training_rank, write_run
from trace_file import TraceFile, check_structure, nanoseconds, read_trace
from trace_processor import TraceProcessor, why_not

from commlens.analyzers import analyze
from commlens.analyzers.stages import join_ranks
from commlens.trace import Run, open_run

sys.path.insert(0, str(Path(__file__).parents[2] / "bench"))

from big_run import make_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Sixteen ranks on two hosts whose clocks differ."""
    return open_run(make_run(tmp_path_factory.mktemp("job") / "run", 16, 8, 60, counters=True))


@pytest.fixture(scope="module")
def trace(run: Run, tmp_path_factory: pytest.TempPathFactory) -> TraceFile:
    path = tmp_path_factory.mktemp("trace") / "trace.json"
    with pytest.MonkeyPatch.context() as patch:
        assert commlens(patch, "export", run.path, "--to", "perfetto", "-o", path) == 0
    return read_trace(path)


def exported(path: Path, monkeypatch: pytest.MonkeyPatch) -> TraceFile:
    """The trace of a run, its structure checked."""
    out = path.with_name("trace.json")
    assert commlens(monkeypatch, "export", path, "--to", "perfetto", "-o", out, "--force") == 0
    trace = read_trace(out)
    check_structure(trace)
    return trace


def test_a_viewer_can_rely_on_the_structure(trace: TraceFile) -> None:
    check_structure(trace)
    assert len(trace.slices) > 1000


def test_a_process_a_rank_and_one_for_all(trace: TraceFile) -> None:
    names = {rank: f"rank {rank} (node-{rank // 8:03d})" for rank in range(16)}
    assert trace.processes == {**names, 16: "all ranks"}
    threads = [name for (pid, _), name in sorted(trace.threads.items()) if pid == 3]
    groups = ["group 0 (default_pg)", "group tp0 (tensor parallel)", "group dp3 (data parallel)"]
    assert threads[:3] == ["analysed steps", "training thread", "standing still for a collective"]
    assert sorted(threads[3:]) == sorted(groups)


def test_one_arrow_for_every_matched_collective(run: Run, trace: TraceFile) -> None:
    _, joined = join_ranks(run)
    assert len(trace.flows) == sum(int(matched.whole.sum()) for matched in joined.matched)
    assert joined.unmatched == 0


def test_arrows_begin_at_the_rank_that_the_others_waited_for(trace: TraceFile) -> None:
    owners = {(each["pid"], each["tid"], each["ts"]): each for each in trace.collectives}
    sources = [owners[each["pid"], each["tid"], each["ts"]] for (each,), _ in trace.flows.values()]
    # Clocks of two hosts are not known well enough for the shortest; inside a host every one is so.
    inside = [each for each in sources if each["args"]["group"].startswith("tp")]
    assert all(each["args"]["last_rank"] == each["pid"] and each["args"]["wait_ms"] == 0 for each in inside)
    assert len(inside) > 100


def test_wait_and_transfer_add_up_to_the_joined_ones(run: Run, trace: TraceFile) -> None:
    ranks, joined = join_ranks(run)
    for facts, waits in zip(ranks, joined.waits, strict=True):
        own = [each for each in trace.collectives if each["pid"] == facts.rank]
        for name, values in (("wait_ms", waits.wait_ns), ("transfer_ms", waits.transfer_ns)):
            assert sum(round(each["args"][name] * 1e6) for each in own) == values.sum()
        drawn = {name: sum(nanoseconds(e["dur"]) for e in trace.slices if e["pid"] == facts.rank and e["name"] == name)
                 for name in ("wait", "transfer")}  # fmt: skip
        # Drawn on the common clock, against which that of a host drifts; and an arrow ends a nanosecond later.
        assert drawn["wait"] == pytest.approx(waits.wait_ns.sum(), rel=1e-4)
        assert drawn["transfer"] == pytest.approx(waits.transfer_ns.sum(), rel=1e-4)


def test_standstill_is_the_reports(run: Run, trace: TraceFile) -> None:
    ranks, joined = join_ranks(run)
    for position, facts in enumerate(ranks):
        steps = [(each["ts"], each["ts"] + each["dur"]) for each in trace.on(facts.rank, "analysed steps")]
        found: dict[str, float] = defaultdict(float)
        for each in trace.on(facts.rank, "standing still"):
            for begin, end in steps:
                found[each["name"]] += max(0, min(end, each["ts"] + each["dur"]) - max(begin, each["ts"]))
        exposed = joined.exposed[position]
        assert found["exposed wait"] * 1000 == pytest.approx(exposed.wait.sum(), rel=1e-4)
        assert found["exposed transfer"] * 1000 == pytest.approx(exposed.transfer.sum(), rel=1e-4)


def test_all_ranks_are_on_one_clock(trace: TraceFile) -> None:
    """The generator ends a collective everywhere at once, on clocks that are tens of milliseconds apart."""
    ends: dict[tuple[str, int], list[float]] = defaultdict(list)
    for each in trace.collectives:
        ends[each["args"]["group"], each["args"]["seq"]].append(each["ts"] + each["dur"])
    apart = max(max(times) - min(times) for times in ends.values())
    assert 0 < apart <= trace.about["clock_uncertainty_us"]


def test_the_critical_path_is_the_reports(run: Run, trace: TraceFile) -> None:
    spans = trace.on(16, "critical path")
    assert all(a["ts"] + a["dur"] <= b["ts"] + 1e-6 for a, b in itertools.pairwise(spans))
    path = analyze(run).critical_path
    assert path is not None
    found: dict[str, float] = defaultdict(float)
    for each in spans:
        found[each["args"]["kind"]] += each["dur"] / 1000 / path.steps
    assert found == pytest.approx(path.by_kind, abs=1e-5)
    assert any(each["name"] == "backward, rank 5" for each in spans)  # the planted straggler


def test_arguments_of_a_collective(trace: TraceFile) -> None:
    bucket = next(each for each in trace.collectives if each["args"].get("bucket") == 1)
    given = {name: bucket["args"][name] for name in ("op", "dtype", "bytes", "timing", "bucket")}
    assert given == {"op": "all_reduce", "dtype": "float32", "bytes": 32 << 20, "timing": "host", "bucket": 1}
    assert bucket["name"] == "all_reduce 33.6 MB"
    assert {"group", "seq", "step", "wait_ms", "transfer_ms", "queued_ms", "last_rank"} <= bucket["args"].keys()
    other = next(each for each in trace.collectives if each["args"]["group"] == "tp0")
    assert "bucket" not in other["args"] and "peer" not in other["args"]  # nothing is known, so nothing is said


def test_links_are_counters(trace: TraceFile) -> None:
    found = {(each["pid"], each["name"]) for each in trace.counters}
    assert found == {(rank, f"eth0 {way}_bytes") for rank in (0, 8) for way in ("tx", "rx")}
    assert max(each["args"]["MB/s"] for each in trace.counters) > 0


def test_what_the_command_says(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "t.json.gz"
    assert commlens(monkeypatch, "export", run.path, "--to", "perfetto", "-o", out) == 0
    said = capsys.readouterr().out
    assert said.splitlines()[0] == str(out)
    assert "16 ranks, 7,680 collectives" in said
    assert "times of two ranks can be wrong against each other by" in said
    trace = read_trace(out)  # compressed, for its name says so
    assert trace.about["clocks"] in said
    assert [each["name"] for each in trace.instants] == [f"clocks: {trace.about['clocks']}"]


def test_clocks_that_cannot_be_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two hosts without a collective in common: each on its own clock, no arrows, and the trace says so."""
    truths = {rank: training_rank(6, host=f"h{rank}", boot_id=f"h{rank}") for rank in (0, 1)}
    for rank, truth in truths.items():
        own = [replace(row, group=f"g{rank}", group_size=1) for row in truth.collectives]
        group = {"name": f"g{rank}", "desc": "", "ranks": [rank], "size": 1}
        truths[rank] = replace(truth, collectives=own, info=truth.info | {"groups": [group]})
    trace = exported(write_run(tmp_path / "run", truths), monkeypatch)
    assert "do not compare times of different ranks" in capsys.readouterr().err
    assert trace.flows == {}
    assert trace.about["clocks_refused"] and "critical path" not in trace.threads.values()
    assert any("do not compare times" in each["name"] for each in trace.instants)
    assert len(trace.collectives) == 24 and "wait_ms" not in trace.collectives[0]["args"]


def test_one_rank(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trace = exported(write_run(tmp_path / "run", {0: training_rank(5)}), monkeypatch)
    assert trace.flows == {} and len(trace.collectives) == 10
    names = {each["name"] for each in trace.on(0, "training thread")}
    assert names == {"forward DDP(Net)", "backward", "optimizer AdamW"}


def test_no_collective_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    truth = replace(training_rank(5), collectives=())
    trace = exported(write_run(tmp_path / "run", {0: truth, 1: truth}), monkeypatch)
    assert trace.collectives == [] and trace.slices
    assert "no collective was recorded" in trace.about["notes"]


def test_nothing_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trace = exported(write_run(tmp_path / "run", {0: RankTruth()}), monkeypatch)
    assert trace.slices == [] and trace.processes == {0: "rank 0 (host0)", 1: "all ranks"}


def test_ranks_that_are_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    truths = slower(even_job(4, 6), 2, 5 * MS).truths()
    del truths[1]
    trace = exported(write_run(tmp_path / "run", truths, world_size=4), monkeypatch)
    assert set(trace.processes) == {0, 2, 3, 4}
    assert "ranks 1 were not recorded" in trace.about["notes"]
    assert len(trace.flows) == 18


def test_collectives_that_did_not_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    truth = training_rank(4)
    began = START + 395 * MS
    pending = Collective(began, started_ns=began + MS, seq=8)
    unstarted = Collective(began, seq=9, timing="enqueue_only")
    late = Collective(began + 20 * MS, began + 30 * MS, began + 21 * MS, seq=8)
    truths = {
        0: replace(truth, collectives=[*truth.collectives, pending, unstarted]),
        1: replace(truth, collectives=[*truth.collectives, late]),
    }
    trace = exported(write_run(tmp_path / "run", truths), monkeypatch)
    open_ones = [each for each in trace.collectives if each["args"].get("finished") is False]
    assert [(each["pid"], each["args"]["seq"]) for each in open_ones] == [(0, 8)]
    assert "wait_ms" not in open_ones[0]["args"] and "bind_id" not in open_ones[0]
    calls = [each for each in trace.instants if "finished" in each.get("args", {})]
    assert [(each["args"]["seq"], each["args"]["finished"]) for each in calls] == [(9, None)]


def test_overlapping_collectives_are_beside_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four at once, of which two wait in the queue."""
    starts = [(0, 0, 50), (1, 1, 60), (2, 50, 70), (3, 60, 80)]
    rows = [
        Collective(START + issued * MS, START + ended * MS, START + started * MS, seq=number)
        for number, (issued, started, ended) in enumerate(starts)
    ]
    trace = exported(write_run(tmp_path / "run", {rank: RankTruth(rows) for rank in (0, 1)}), monkeypatch)
    threads = [name for (pid, _), name in sorted(trace.threads.items()) if pid == 0 and "group" in name]
    assert threads == ["group 0 (desc 0)", "group 0 (desc 0) (2)"]
    queue = [each for each in trace.counters if each["pid"] == 0]
    assert [(each["ts"] / 1000, each["args"]["collectives"]) for each in queue] == [(2, 1), (3, 2), (50, 1), (60, 0)]


def test_kernels_of_a_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kernels = [Kernel(START + k * 10 * MS, START + (k * 10 + 15) * MS, name=f"gemm{k}") for k in range(3)]
    kernels.append(Kernel(START, START + MS, kind="copy", name="Memcpy"))
    truth = replace(training_rank(4), kernels=kernels)
    trace = exported(write_run(tmp_path / "run", {0: truth}), monkeypatch)
    assert [each["name"] for each in trace.on(0, "device: compute")] == ["gemm0", "gemm1", "gemm2"]
    assert {each["tid"] for each in trace.on(0, "device: compute")} == {4, 5}
    assert len(trace.on(0, "device: copy")) == 1


def test_hostile_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = '</script><img src=x onerror=alert(1)>"\\\n\0\x1b[31m\u2028' + "x" * 5000
    truth = training_rank(4, host=name, boot_id="one")
    rows = [replace(row, group=name) for row in truth.collectives]
    phases = [replace(phase, name=name) for phase in truth.phases]
    truths = {rank: replace(truth, collectives=rows, phases=phases) for rank in (0, 1)}
    trace = exported(write_run(tmp_path / "run", truths), monkeypatch)
    assert all(len(each) < 300 for each in [*trace.processes.values(), *trace.threads.values()])
    assert trace.processes[0].startswith("rank 0 (</script><img")
    text = (tmp_path / "trace.json").read_bytes()
    assert not any(byte < 32 and byte != 10 for byte in text)


def test_nothing_is_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(tmp_path / "run", {0: training_rank(4)})
    out = tmp_path / "trace.json"
    out.write_text("mine")
    command = ("export", run, "--to", "perfetto", "-o")
    assert commlens(monkeypatch, *command, out) == 1
    assert out.read_text() == "mine"
    assert commlens(monkeypatch, *command, tmp_path) == 1
    assert capsys.readouterr().err.count("\n") == 2
    assert commlens(monkeypatch, *command, out, "--force") == 0
    check_structure(read_trace(out))


@pytest.mark.parametrize("kind", ["perfetto", "csv", "parquet"])
def test_a_full_disk_leaves_nothing(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(tmp_path / "run", {0: training_rank(40)})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, limits[1]))
    try:
        assert commlens(monkeypatch, "export", run, "--to", kind, "-o", tmp_path / "out") == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    said = capsys.readouterr().err
    assert said.startswith("commlens: cannot write") and said.count("\n") == 1
    assert [path for path in tmp_path.rglob("*") if path.is_file() and run not in path.parents] == []


@pytest.mark.parametrize("kind", ["perfetto", "csv"])
def test_an_interrupt_leaves_nothing(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = write_run(tmp_path / "run", {rank: training_rank(4) for rank in (0, 1)})
    asked = []

    def interrupted(*_: object) -> None:
        asked.append(kind)
        raise KeyboardInterrupt

    monkeypatch.setattr("commlens.cli.exported_tables.pa.repeat", interrupted)
    monkeypatch.setattr("commlens.cli.rank_events.rank_spans", interrupted)
    assert commlens(monkeypatch, "export", run, "--to", kind, "-o", tmp_path / "out") != 0
    assert asked
    assert [path for path in tmp_path.rglob("*") if path.is_file() and run not in path.parents] == []


@pytest.mark.skipif(why_not() is not None, reason=f"no trace processor: {why_not()}")
def test_perfettos_trace_processor_opens_it(run: Run, trace: TraceFile, tmp_path: Path) -> None:
    """What Perfetto makes of the file: every slice, one arrow a matched collective, and no complaint."""
    out = tmp_path / "trace.json.gz"
    with pytest.MonkeyPatch.context() as patch:
        assert commlens(patch, "export", run.path, "--to", "perfetto", "-o", out) == 0
    _, joined = join_ranks(run)
    with TraceProcessor(out) as opened:
        assert opened.query("select count(*) from slice where dur >= 0") == [(len(trace.slices) + len(trace.instants),)]
        matched = sum(int(each.whole.sum()) for each in joined.matched)
        assert opened.query("select count(distinct trace_id) from flow") == [(matched,)]
        arrows = sum(len(enters) for _, enters in trace.flows.values())
        assert opened.query("select count(*) from flow") == [(arrows,)]
        assert opened.query("select name from stats where value > 0 and severity != 'info'") == []
        names = opened.query("select pid, name from process where name is not null order by pid")
        assert dict(names) == trace.processes
        counters = "select count(*) from counter join counter_track on counter.track_id = counter_track.id"
        assert opened.query(counters) == [(len(trace.counters),)]
        waits = "select sum(dur) from slice where name = 'wait'"
        drawn = sum(nanoseconds(each["dur"]) for each in trace.slices if each["name"] == "wait")
        assert opened.query(waits) == [(drawn,)]


def test_numbers_are_written_exactly() -> None:
    from commlens.cli.trace_events import decimal, picked, whole

    values = np.array([0, 1, 999, 1000, 123_456_789_012_345])
    assert decimal(values, 3).to_pylist() == ["0.000", "0.001", "0.999", "1.000", "123456789012.345"]
    assert whole(values).to_pylist() == [str(each) for each in values]
    assert picked(['"a"'], np.array([0, -1])).to_pylist() == ['"a"', "null"]
