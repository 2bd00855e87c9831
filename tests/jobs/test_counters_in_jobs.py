"""Counters of a real job: which rank reads them, and that they hold what the collectives moved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from job_runs import FIRST, LAST, Launch

from commlens.trace import Rank, Run, open_run

BYTES, TIMES = 8_000_000, 12
JOB = f"""
{FIRST}
import os, sys, time
dist.init_process_group("gloo")
{{begin}}
tensor = torch.ones({BYTES // 4})
for _ in range({TIMES}):
    dist.all_reduce(tensor)
{{end}}
{LAST}
"""
# At the job's end a rank's connections are gone, so that it waits until they have been read once more.
READ_ONCE_MORE = """
from commlens.profiler import live
said = lambda: live.recorder.counters.described()["counters"]
before, deadline = said(), time.monotonic() + 60
while said()["samples"] < before["samples"] + 1 + 2000 // before["interval_ms"]:
    assert time.monotonic() < deadline
    time.sleep(0.01)
"""


def recorded(launch: Launch, folder: Path, begin: str = "", end: str = "", **env: str) -> tuple[Run, list[str]]:
    job = launch(JOB.format(begin=begin, end=end), 2, env={"COMMLENS": str(folder), **env})
    assert job.rc == 0, job.stderr[-2000:]
    return open_run(folder), job.warnings


def readings(rank: Rank) -> dict[tuple[str, str], list[tuple[int, int]]]:
    """(time, value) of each counter, in the order of the rows."""
    found: dict[tuple[str, str], list[tuple[int, int]]] = {}
    for row in rank.table("counters").to_pylist():
        found.setdefault((row["device"], row["counter"]), []).append((row["time_ns"], row["value"]))
    return found


def samplers(run: Run) -> list[int]:
    return [number for number, rank in run.ranks.items() if "sampled_by" not in rank.info["counters"]]


def moved_after(rank: Rank, at_ns: int) -> int:
    """Bytes of the all_reduces issued after `at_ns`."""
    columns = rank.columns("collectives", ["issued_ns", "in_bytes"])
    return int(columns["in_bytes"][columns["issued_ns"] >= at_ns].sum())


@pytest.mark.job
def test_one_rank_reads_the_node_and_its_loopback_holds_what_was_moved(launch: Launch, tmp_path: Path) -> None:
    run, warnings = recorded(launch, tmp_path / "out", end="dist.barrier()")
    assert warnings == []
    (sampler,) = samplers(run)
    rank = run.ranks[sampler]
    assert run.ranks[1 - sampler].info["counters"]["sampled_by"] == "another process of this run on this node"
    links = {link["name"]: link for link in rank.info["links"]}
    assert links["lo"]["kind"] == "ethernet"
    sent = readings(rank)["lo", "tx_bytes"]
    times, values = np.array(sent).T
    assert (np.diff(times) > 0).all()
    assert (np.diff(values) >= 0).all()
    # Of two ranks each sends every byte of an all_reduce once.
    expected = 2 * moved_after(rank, sent[0][0])
    assert expected > 0
    assert sent[-1][1] - sent[0][1] >= expected
    end: dict[str, Any] = rank.info["end"]
    assert sent[-1][0] <= end["ns"]
    assert rank.info["counters"]["interval_ms"] == 100
    assert rank.info["counters"]["cost_us_per_sample"] > 0


@pytest.mark.job
def test_each_rank_knows_its_own_connections(launch: Launch, tmp_path: Path) -> None:
    run, _ = recorded(launch, tmp_path / "out", end=f"dist.barrier()\n{READ_ONCE_MORE}")
    for rank in run.ranks.values():
        device = f"process-{rank.info['pid']}"
        (link,) = [link for link in rank.info["links"] if link["kind"] == "process"]
        assert link["name"] == device
        found = readings(rank)
        for word in ("tx_bytes", "rx_bytes"):
            total = found[device, word][-1][1]
            assert BYTES * TIMES <= total <= 1.01 * BYTES * TIMES + 1_000_000


@pytest.mark.job
def test_off_means_off_and_nonsense_is_said_once_a_rank(launch: Launch, tmp_path: Path) -> None:
    run, warnings = recorded(launch, tmp_path / "off", COMMLENS_COUNTERS="off")
    assert warnings == []
    for rank in run.ranks.values():
        assert rank.table("counters").num_rows == 0
        assert rank.info["counters"] == {"sampled_by": "nobody: COMMLENS_COUNTERS is off"}
    run, warnings = recorded(launch, tmp_path / "nonsense", COMMLENS_COUNTERS="often")
    assert len(warnings) == 2
    assert all("COMMLENS_COUNTERS=often" in line for line in warnings)
    assert len(samplers(run)) == 1


@pytest.mark.job
def test_what_a_killed_job_had_read_is_there(launch: Launch, tmp_path: Path) -> None:
    killed = """
import glob
# Of both: the first to be killed takes the other with it.
written = os.path.join(os.environ["COMMLENS"], "*", "rank-*", "counters.arrows")
deadline = time.monotonic() + 60
while sum(os.path.getsize(path) > 0 for path in glob.glob(written)) < 2:
    assert time.monotonic() < deadline
    time.sleep(0.01)
os.kill(os.getpid(), 9)
"""
    job = launch(JOB.format(begin="", end=killed), 2, env={"COMMLENS": str(tmp_path / "out")})
    assert set(job.exit_codes.values()) <= {-9, -15}
    assert job.rc != 0
    run = open_run(tmp_path / "out")
    (sampler,) = samplers(run)
    assert readings(run.ranks[sampler])["lo", "tx_bytes"]


@pytest.mark.job
def test_the_prometheus_file_is_there_while_the_job_runs(launch: Launch, tmp_path: Path) -> None:
    path = tmp_path / "commlens.prom"
    copy = """
deadline = time.monotonic() + 60
while not os.path.exists(os.environ["COMMLENS_PROMETHEUS"]) and time.monotonic() < deadline:
    time.sleep(0.01)
if dist.get_rank() == 0:
    open("seen.prom", "w").write(open(os.environ["COMMLENS_PROMETHEUS"]).read())
dist.barrier()
"""
    run, warnings = recorded(launch, tmp_path / "out", end=copy, COMMLENS_PROMETHEUS=str(path))
    assert warnings == []
    seen = (tmp_path / "seen.prom").read_text()
    (sampler,) = samplers(run)
    assert f'run="{run.info["run_id"]}",rank="{sampler}",device="lo",kind="ethernet"' in seen
    assert "commlens_collectives_total{" in seen
    assert not path.exists()
