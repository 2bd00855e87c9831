"""Real torchrun jobs on Gloo, shared by the tests in this folder."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

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
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("COMMLENS")}
    recorder = os.environ.get("COMMLENS_TEST_RECORDER", "python")
    merged = {**inherited, "OMP_NUM_THREADS": "1", "COMMLENS_RECORDER": recorder, **env}
    process = subprocess.Popen(
        command,
        cwd=cwd,
        env={name: value for name, value in merged.items() if value is not None},
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
        pytest.fail(f"no end after {timeout} s\n{stdout[-2000:]}\n{stderr[-4000:]}")
    return Job(process.returncode, stdout, stderr)
