"""Runs a scenario as a real torchrun job with the recorder on."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from agent import Agent
from lab import board, plan
from lab.calibration import write_healthy
from lab.scenario import HANGS, Scenario

SCENARIO_FILE = "scenario.txt"
LAB = Path(__file__).resolve().parent
TIMEOUT_S = 180  # a healthy job takes a tenth of it, most of that for importing torch
SETTLE_S = 14.0  # a hung job is left alone so long before it is killed: longer than commlens asks of a hang
DISTURBED_MS = 25.0  # a rank so much behind its plan was held up by the machine: the job is run anew
TRIES = 3


class JobFailedError(Exception):
    """A job that did not end as its scenario says."""


class Ended(NamedTuple):
    """What a job left behind: exit code, output, whether it was killed, and the worst delay that nobody planned."""

    rc: int
    output: str
    killed: bool
    late_ms: float


def record(scenario: Scenario, folder: Path) -> Path:
    """The run folder, in `folder`, of a recording of this scenario.

    Raises:
        JobFailedError: It failed, hung or succeeded against its plan.
    """
    for _ in range(TRIES):
        shutil.rmtree(folder, ignore_errors=True)
        env = {plan.VARIABLE: scenario.plan.to_json(), "COMMLENS": str(folder)}
        script = LAB / "jobs" / f"{scenario.job}.py"
        ended = torchrun(script, scenario.args, scenario.ranks, env, TIMEOUT_S, scenario.ends == HANGS)
        _check(scenario, ended)
        if ended.late_ms < DISTURBED_MS:
            break
    found = [path.parent for path in folder.glob("*/run.json")]
    if len(found) != 1:
        raise JobFailedError(f"it left {len(found)} runs in {folder}: {ended.output[-500:]}")
    (folder / SCENARIO_FILE).write_text(described(scenario))
    if scenario.healthy_link is not None:
        write_healthy(found[0], scenario.healthy_link, scenario.ranks)
    for rank in scenario.lost:
        shutil.rmtree(found[0] / f"rank-{rank:05d}")
    return found[0]


def described(scenario: Scenario) -> str:
    """What a recording of this scenario depends on."""
    return repr((scenario.job, scenario.args, scenario.ranks, scenario.plan, scenario.healthy_link, scenario.lost))


def recorded(scenario: Scenario, folder: Path) -> Path | None:
    """The run folder of an earlier recording of exactly this scenario in `folder`, None where there is none."""
    file = folder / SCENARIO_FILE
    if not file.exists() or file.read_text() != described(scenario):
        return None
    return next(path.parent for path in folder.glob("*/run.json"))


def _check(scenario: Scenario, ended: Ended) -> None:
    hangs = scenario.ends == HANGS
    if ended.killed != hangs or (ended.rc != 0) != hangs:
        was = "was killed" if ended.killed else f"ended with {ended.rc}"
        raise JobFailedError(f"the job {was}, planned was: {scenario.ends}; {_errors(ended.output)}")


def _errors(output: str) -> str:
    """The first lines of a job's output that look like its reason."""
    lines = [line for line in output.splitlines() if "rror" in line and "torchelastic" not in line]
    return " | ".join(lines[:3]) or output[-500:]


def torchrun(
    script: Path, args: tuple[str, ...], ranks: int, env: dict[str, str], timeout_s: float, hangs: bool = False
) -> Ended:
    """Runs a torchrun job on this machine; whatever it started has ended afterwards.

    Args:
        hangs: a rank will say that it is stuck or gone; then, after a while, all ranks are killed.
    """
    # torchrun must not be the one who ends a job whose rank is gone: on many hosts it would not see that either.
    patience = ["--monitor-interval", "60" if hangs else "0.2"]
    arguments = ["--standalone", f"--nproc-per-node={ranks}", *patience, str(script), *args]
    with tempfile.TemporaryDirectory(prefix="commlens-lab-") as folder:
        meet, output = Path(folder), Path(folder, "output.txt")
        agent = Agent(arguments, {**_environment(), **env, board.VARIABLE: folder}, Path.cwd(), output, output)
        try:
            killed = not _wait(agent, meet, timeout_s, hangs)
        finally:
            rc = _end(agent, meet)
        late = [float(path.read_text()) for path in meet.glob(f"{board.LATE}*")]
        return Ended(rc, output.read_text(), killed, max(late, default=0.0))


def _environment() -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("COMMLENS", "LAB_"))}
    paths = [str(LAB.parent), str(LAB.parent.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    # The native recorder sees when Gloo's threads end, which the link makes end later.
    fixed = {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore", "COMMLENS_RECORDER": "python"}
    return {**inherited, **fixed, "PYTHONPATH": os.pathsep.join(paths)}


def _wait(agent: Agent, meet: Path, timeout_s: float, hangs: bool) -> bool:
    """Whether the job ended by itself."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if agent.wait(0.05) is not None:
            return True
        if hangs and (meet / board.STUCK).exists():
            time.sleep(SETTLE_S)
            break
    return agent.wait() is not None


def _end(agent: Agent, meet: Path) -> int:
    """Kills the ranks, by the ids they wrote down, then torchrun; its exit code."""
    if (rc := agent.wait()) is not None:
        return rc
    for file in meet.glob(f"{board.PID}*"):
        with suppress(ProcessLookupError, ValueError):
            os.kill(int(file.read_text()), signal.SIGKILL)
    agent.terminate()  # it ends whatever else it started
    while (rc := agent.wait(45)) is None:
        agent.kill()
    return rc
