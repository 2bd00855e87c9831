"""A job on two nodes that packs each of them: asked to pause while it runs, and one of its ranks killed at the end."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from agent import Agent
from command_line import commlens
from job_runs import FIRST, LAST, _environment

from commlens import analyze, open_run

pytestmark = pytest.mark.job

PATIENCE_S = 100.0
SCRIPT = (
    FIRST
    + """
import os, signal, sys, time
from pathlib import Path
from torch import nn
from torch.nn.parallel import DistributedDataParallel

dist.init_process_group("gloo")
model = DistributedDataParallel(nn.Linear(64, 64))
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
go_on = torch.ones(1)
while go_on.item():
    optimizer.zero_grad()
    model(torch.randn(8, 64)).square().mean().backward()
    optimizer.step()
    time.sleep(0.05)
    go_on[0] = float(not Path("stop").exists())
    dist.broadcast(go_on, 0)
live = sys.modules["commlens.profiler.live"]
live.recorder.flush_soon()
time.sleep(1)
if dist.get_rank() == 3:
    os.kill(os.getpid(), signal.SIGKILL)
"""
    + LAST
)


def until(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[list[Agent]]:
    """An agent a node, with a node-local folder each and the run's folder in common."""
    (tmp_path / "job.py").write_text(SCRIPT)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    started = []
    for node in range(2):
        env = {"COMMLENS": "out", "COMMLENS_PACK": "node", "COMMLENS_LOCAL": str(tmp_path / f"local-{node}")}
        meeting = ["--master-addr=127.0.0.1", f"--master-port={port}"]
        arguments = ["--nnodes=2", f"--node-rank={node}", "--nproc-per-node=2", *meeting, str(tmp_path / "job.py")]
        outputs = tmp_path / f"stdout-{node}", tmp_path / f"stderr-{node}"
        started.append(Agent(arguments, _environment(env), tmp_path, *outputs))
    yield started
    (tmp_path / "stop").touch()
    for agent in started:
        agent.terminate()
        if agent.wait(PATIENCE_S) is None:
            agent.kill()


def test_two_nodes_one_of_which_loses_a_rank(
    nodes: list[Agent], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    locals_ = [tmp_path / f"local-{node}" for node in range(2)]
    until(lambda: list(tmp_path.glob("out/*/run.json")) and all(any(each.iterdir()) for each in locals_))
    until(lambda: all(open_run(each).ranks[rank].table("phases").num_rows > 20 for each, rank in _first(locals_)))
    capsys.readouterr()
    assert commlens(monkeypatch, "pause", locals_[1]) == 0
    said = capsys.readouterr().out
    assert "rank 2: paused" in said and "rank 3: paused" in said
    (tmp_path / "stop").touch()
    until(lambda: not any(any(each.iterdir()) for each in locals_))  # packed, read back, removed
    assert nodes[1].wait(PATIENCE_S) == 1
    nodes[0].kill()  # its ranks have ended; it would wait minutes for the other agent

    path = next((tmp_path / "out").iterdir())
    assert sorted(each.name for each in path.iterdir()) == [
        "control.json",
        "node-00000.zip",
        "node-00002.zip",
        "run.json",
    ]
    run = open_run(path)
    assert list(run.ranks) == [0, 1, 2, 3]
    paused = [rank.info["paused"] for rank in run.ranks.values()]
    assert len(paused[0]) == 1 and paused == [paused[0]] * 4
    assert run.ranks[3].info["end"] is None
    assert all(rank.table("collectives").num_rows > 20 for rank in run.ranks.values())
    report = analyze(run)
    assert report.coverage.collectives_unmatched == 0
    for node in range(2):
        lines = (tmp_path / f"stderr-{node}").read_text(errors="replace").splitlines()
        assert [line for line in lines if line.startswith("commlens")] == []


def _first(folders: list[Path]) -> list[tuple[Path, int]]:
    return list(zip(folders, (0, 2), strict=True))
