"""Real torchrun jobs on Gloo, shared by the tests in this folder."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import pytest
from agent import Agent

Launch = Callable[..., "Job"]
_EXIT_CODE = re.compile(r"rank +: (\d+) \(.*?exitcode +: (-?\d+)", re.DOTALL)

# A job's end as samples/common.py has it: else torch itself may abort it, or hang, now and then. Modules that come with
# the first optimizer bind the default group for ever if there is one by then: FIRST before init_process_group.
FIRST = "import torch, torch.distributed.nn.functional, torch.distributed as dist\n"
LAST = """
import gc
for name in [n for n, v in globals().items() if isinstance(v, (torch.nn.Module, torch.optim.Optimizer, torch.Tensor))]:
    del globals()[name]
gc.collect()
dist.destroy_process_group()
"""


@dataclass
class Job:
    """What a job left behind."""

    rc: int
    stdout: str
    stderr: str

    @property
    def warnings(self) -> list[str]:
        """What the recorder said, one line each, and what a thread of its died of."""
        return [line for line in self.stderr.splitlines() if re.search(r"^commlens|thread commlens", line)]

    @property
    def exit_codes(self) -> dict[int, int]:
        """Exit codes of the ranks that torchrun calls failed."""
        return {int(rank): int(code) for rank, code in _EXIT_CODE.findall(self.stderr)}

    def said(self, word: str) -> list[str]:
        """What the ranks printed after `word`, in a fixed order."""
        return sorted(re.findall(rf"^{word} (.*)$", self.stdout, re.MULTILINE))


def execute(command: list[str], env: Mapping[str, str | None], cwd: Path, timeout: float = 120) -> Job:
    """Runs a command without COMMLENS but for what `env` says; None takes a variable away.

    The recorder in Python is used, whatever was built for the user; COMMLENS_TEST_RECORDER names another for all jobs.
    """
    process = subprocess.Popen(
        command,
        cwd=cwd,
        env=_environment(env),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    )
    try:
        stdout, stderr = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGTERM)  # torchrun then ends its ranks
        stdout, stderr = process.communicate(timeout=60)
        _no_end(timeout, stdout, stderr)
    return Job(process.returncode, stdout, stderr)


def torchrun(arguments: list[str], env: Mapping[str, str | None], cwd: Path, timeout: float = 120) -> Job:
    """Runs a torchrun job, as `execute` runs a command."""
    with tempfile.TemporaryDirectory(prefix="commlens-job-") as folder:
        outputs = Path(folder, "stdout"), Path(folder, "stderr")
        agent = Agent(arguments, _environment(env), cwd, *outputs)
        rc = agent.wait(timeout)
        if rc is None:
            agent.terminate()
            agent.wait(60)
        stdout, stderr = (path.read_text(errors="replace") for path in outputs)
    if rc is None:
        _no_end(timeout, stdout, stderr)
    return Job(rc, stdout, stderr)


def _environment(env: Mapping[str, str | None]) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("COMMLENS")}
    recorder = os.environ.get("COMMLENS_TEST_RECORDER", "python")
    merged = {**inherited, "OMP_NUM_THREADS": "1", "COMMLENS_RECORDER": recorder, **env}
    return {name: value for name, value in merged.items() if value is not None}


def _no_end(timeout: float, stdout: str, stderr: str) -> NoReturn:
    pytest.fail(f"no end after {timeout} s\n{stdout[-2000:]}\n{stderr[-4000:]}")
