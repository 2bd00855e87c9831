"""Emulated hosts come up, have the speeds and clocks they were given, and leave nothing behind."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from statistics import median

import pytest
from lab import seen, skew
from lab.host_faults import CATALOGUE, JOB
from lab.hosts import PREFIX, LabError, available, lab_hosts
from lab.skew import Clock, stored_ns, true_ns

import commlens

DAY_NS = 86_400 * 10**9


@pytest.fixture(scope="module")
def emulated() -> None:
    """Skips where there can be no emulated hosts."""
    if reason := available():
        pytest.skip(reason)


def left_behind(pid: int | None = None) -> list[str]:
    """A process' namespaces; a bridge, a veth and a rank live in one of them and would keep it."""
    listed = subprocess.run(["ip", "netns", "list"], check=True, capture_output=True, text=True).stdout
    return [line for line in listed.splitlines() if line.startswith(f"{PREFIX}{pid or os.getpid()}x")]


@pytest.mark.job
@pytest.mark.usefixtures("emulated")
def test_hosts_are_there_within_and_gone_afterwards() -> None:
    with lab_hosts([None, 100, 50], {(0, 1): 20}) as lab:
        assert len(left_behind()) == 4
        shown = subprocess.run(
            ["tc", "-n", lab.hosts[2], "qdisc", "show", "dev", "lab0"], check=True, capture_output=True, text=True
        )
        assert "tbf" in shown.stdout
    assert not left_behind()


@pytest.mark.job
@pytest.mark.usefixtures("emulated")
def test_hosts_are_gone_after_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ZeroDivisionError), lab_hosts([100, 100]):
        raise ZeroDivisionError
    monkeypatch.setattr("lab.hosts._LIMIT", "no-number")
    with pytest.raises(subprocess.CalledProcessError), lab_hosts([100, 100, 100]):
        pass
    assert not left_behind()


@pytest.mark.job
@pytest.mark.usefixtures("emulated")
def test_what_a_killed_process_left_is_removed() -> None:
    script = "import os\nfrom lab.hosts import lab_hosts\nwith lab_hosts([None, None]):\n    os.kill(os.getpid(), 9)\n"
    paths = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    killed = subprocess.Popen([sys.executable, "-c", script], env=paths)
    assert killed.wait(60) == -9
    assert left_behind(killed.pid)
    with lab_hosts([None, None]):
        assert not left_behind(killed.pid)


@pytest.mark.job
@pytest.mark.usefixtures("emulated")
def test_a_failing_rank_ends_the_others_and_says_why(tmp_path: Path) -> None:
    script = tmp_path / "job.py"
    script.write_text("import os, time\ntime.sleep(60 * int(os.environ['RANK']))\nraise SystemExit('rank 0 is out')\n")
    with pytest.raises(LabError, match="rank 0 is out"), lab_hosts([None, None]) as lab:
        lab.launch(script)
    assert not left_behind()


@pytest.mark.job
@pytest.mark.usefixtures("emulated")
def test_ranks_that_do_not_end_are_ended(tmp_path: Path) -> None:
    script = tmp_path / "job.py"
    script.write_text("import time\ntime.sleep(60)\n")
    with lab_hosts([None, None]) as lab:
        with pytest.raises(LabError, match="no end after 1 s"):
            lab.launch(script, timeout_s=1)
        running = [subprocess.run(["ip", "netns", "pids", each], capture_output=True).stdout for each in lab.hosts]
        assert running == [b"", b""]


@pytest.mark.job
@pytest.mark.usefixtures("emulated")
def test_links_and_pairs_have_their_rates(tmp_path: Path) -> None:
    size = 500_000
    with lab_hosts([200, 200, 100], {(0, 1): 40}) as lab:
        lab.launch(JOB, "--pair-bytes", str(size), "--steps", "8", env={"COMMLENS": str(tmp_path)})
    took = pair_ms(next(tmp_path.iterdir()))
    for pair, rate in {(0, 1): 40, (0, 2): 100, (1, 2): 100}.items():
        ideal_ms = size * 8 / rate / 1e3
        assert 0.95 * ideal_ms < took[pair] < 1.6 * ideal_ms


def pair_ms(path: Path) -> dict[tuple[int, ...], float]:
    """Median time of each pair's all_reduce, of the rank that came last."""
    members, of_pair = seen.groups(path), defaultdict(list)
    for row in seen.rows_of(path):
        if len(members[row["group"]]) == 2:
            of_pair[members[row["group"]], row["seq"]].append((row["completed_ns"] - row["started_ns"]) / 1e6)
    return {
        pair: median(min(took) for (each, _), took in of_pair.items() if each == pair)
        for pair in {pair for pair, _ in of_pair}
    }


@pytest.mark.job
@pytest.mark.usefixtures("emulated")
def test_every_host_has_a_name_a_boot_id_and_a_clock_of_its_own(tmp_path: Path) -> None:
    clocks = [Clock(0.0, -40.0), Clock(3.0, 70.0)]
    with lab_hosts([None, None]) as lab:
        lab.launch(JOB, "--steps", "8", ranks_per_host=2, env={"COMMLENS": str(tmp_path)}, clocks=clocks)
    run = commlens.open_run(next(tmp_path.iterdir()))
    infos = [run.ranks[rank].info for rank in range(4)]
    assert [info["host"] for info in infos] == ["lab-host-0"] * 2 + ["lab-host-1"] * 2
    assert len({info["boot_id"] for info in infos}) == 2
    # One clock a host: wall = monotonic + the host's own constant, read by each of its ranks.
    offsets = [info["clock"]["wall_offset_ns"] for info in infos]
    assert max(abs(offsets[0] - offsets[1]), abs(offsets[2] - offsets[3])) < 10**6
    assert abs(offsets[2] - offsets[0] - 3 * 10**9 + DAY_NS) < 10**7

    ends = [run.ranks[rank].columns("collectives", ["completed_ns"])["completed_ns"].tolist() for rank in range(4)]
    apart = median(late - early for early, late in zip(ends[0], ends[2], strict=True))
    assert abs(apart - 3 * 10**9) < 10**8  # Gloo's ranks end a collective within a few ms
    undone = [[true_ns(end, clocks[rank // 2], lab.reference) for end in ends[rank]] for rank in (0, 2)]
    assert abs(median(late - early for early, late in zip(*undone, strict=True))) < 10**8


@pytest.mark.job
@pytest.mark.usefixtures("emulated")
def test_what_if_on_a_real_link_says_what_the_link_then_does(tmp_path: Path) -> None:
    """A small version of bench/whatif_hosts.py. The link takes most of the step, so that busy cores matter little."""
    sample = Path(__file__).parents[2] / "samples" / "fault_giant_bucket.py"
    size = ("--steps", "14", "--hidden", "256", "--layers", "16", "--batch", "64")

    def step_ms(name: str, mbit: float) -> float:
        with lab_hosts([mbit, mbit]) as lab:
            lab.launch(sample, *size, env={"COMMLENS": str(tmp_path / name)})
        step = commlens.analyze(commlens.open_run(tmp_path / name)).time_budget.step_ms
        assert step is not None
        return step

    before = step_ms("before", 50)
    answers = commlens.simulate(commlens.open_run(tmp_path / "before"), "link.bandwidth=x2")
    (faster,) = answers.scenarios
    after = step_ms("after", 100)
    assert after < 0.75 * before
    if faster.predicted is None:  # on a machine too busy to tell: then it says so
        assert answers.abstention or faster.abstention
    else:
        assert faster.predicted.step_ms == pytest.approx(after, rel=0.15)


def test_a_clock_is_undone_exactly() -> None:
    reading = {"mono_ns": 5_000_000_000_000, "wall_ns": 1_790_000_000_000_000_000}
    clock = Clock(-4.25, 80.0)
    stored = [stored_ns(reading["mono_ns"] + since, clock, reading) for since in (0, 10**9, 10**12)]
    assert stored[1] - stored[0] == 10**9 + 80_000
    assert stored[0] == reading["wall_ns"] - 4_250_000_000
    undone = [true_ns(each, clock, reading) - reading["wall_ns"] for each in stored]
    assert [abs(at - since) <= 1 for at, since in zip(undone, (0, 10**9, 10**12), strict=True)] == [True] * 3


def test_a_clock_cannot_be_faked_too_late(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "commlens.profiler.recorder", sys)
    with pytest.raises(RuntimeError, match="too late"):
        skew.install({"host": 0})


def test_clock_variants_expect_the_same() -> None:
    for name, scenario in CATALOGUE.items():
        plain = CATALOGUE[name.partition("+")[0]]
        assert (scenario.expected, scenario.hosts, scenario.pairs) == (plain.expected, plain.hosts, plain.pairs)
        assert bool(scenario.clocks) == ("+" in name)
