"""torchrun from a process that has imported torch already, which saves every job the second that takes.

Only torchrun's own process, its agent, is a fork; the ranks are interpreters of their own, started as ever. The agent
as a user starts it, with COMMLENS in its environment: tests/jobs/test_calls.py, test_survival.py and tests/cli.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
from collections.abc import Mapping, Sequence
from multiprocessing import connection
from pathlib import Path

_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(["torch.distributed.run"])
_LOCK = threading.Lock()  # multiprocessing reaps all that have ended whenever it starts one


class Agent:
    """A torchrun job that has been started.

    Args:
        arguments: of torchrun.
        env: the whole environment.
        stdout: file that is written to.
        stderr: the same, and may be the same file.
    """

    def __init__(self, arguments: Sequence[str], env: Mapping[str, str], cwd: Path, stdout: Path, stderr: Path) -> None:
        self._process = _SERVER.Process(target=_run, args=(list(arguments), dict(env), cwd, stdout, stderr))
        with _LOCK:
            self._process.start()

    def wait(self, timeout_s: float = 0.0) -> int | None:
        """The exit code, None where it has not ended after so long."""
        connection.wait([self._process.sentinel], timeout_s)
        with _LOCK:
            return self._process.exitcode

    def terminate(self) -> None:
        """Has it end its ranks and itself."""
        self._process.terminate()

    def kill(self) -> None:
        self._process.kill()


def _run(arguments: list[str], env: dict[str, str], cwd: Path, stdout: Path, stderr: Path) -> None:
    """What the forked process does; torchrun raises SystemExit or what failed, as it does where a user starts it."""
    from torch.distributed.run import main

    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    for path, stream in ((stdout, sys.stdout), (stderr, sys.stderr)):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(file, stream.fileno())
        os.close(file)
    main(arguments)
