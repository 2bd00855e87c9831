"""Starting a job with the user's own launcher."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from commlens.errors import CommlensError

if TYPE_CHECKING:
    from types import FrameType

PROGRESS = "commlens: "  # before a line of our job that the user is shown
FAILURE = "commlens-failure: "  # before a line that says why our job gave up
_KEPT_LINES = 100_000  # of what a job says
_GRACE_S = 5.0  # for a launcher to end by itself after Ctrl-C, which reached it too
_ERROR = re.compile(r"((?:\w+\.)*\w*(?:Error|Exception)\b: .*)")


def launch(command: Sequence[str], variables: Mapping[str, str] | None = None) -> None:
    """Runs a job with no variable of ours but `variables`, and passes on the progress it prints.

    However this ends, Ctrl-C and SIGTERM included, the launcher has ended too.

    Raises:
        CommlensError: The launcher ended with another code than 0.
    """
    output: deque[str] = deque(maxlen=_KEPT_LINES)
    with sigterm_raises(), _ended(_start(command, variables or {})) as job:
        assert job.stdout is not None
        for line in job.stdout:
            output.append(line)
            if line.startswith(PROGRESS):
                print(line, end="", file=sys.stderr, flush=True)  # noqa: T201
        code = job.wait()
    if code != 0:
        raise CommlensError(_failure(code, output))


def _start(command: Sequence[str], variables: Mapping[str, str]) -> subprocess.Popen[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COMMLENS")}
    return subprocess.Popen(
        command,
        env={**environment, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )


@contextlib.contextmanager
def _ended(job: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    """The job, which does not outlive the block."""
    try:
        yield job
    except KeyboardInterrupt:
        # Ctrl-C reached the launcher from the terminal too, and a second signal would break off its cleaning up.
        _wait(job)
        raise
    finally:
        for number in (signal.SIGTERM, signal.SIGKILL):
            if job.poll() is None:
                job.send_signal(number)
                _wait(job)
        if job.stdout is not None:
            job.stdout.close()


def _wait(job: subprocess.Popen[str]) -> None:
    with contextlib.suppress(subprocess.TimeoutExpired):
        job.wait(_GRACE_S)


@contextlib.contextmanager
def sigterm_raises() -> Iterator[None]:
    """SIGTERM ends the block as an exception does, so that what it opened is closed."""

    def leave(number: int, _: FrameType | None) -> None:
        sys.exit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _failure(code: int, output: Sequence[str]) -> str:
    """Why the launcher failed, in one line; all it said goes to a file."""
    given_up = [line.removeprefix(FAILURE).strip() for line in output if line.startswith(FAILURE)]
    if given_up:
        return given_up[0]
    errors = [found[1] for line in output if (found := _ERROR.search(line))]
    said = next(iter(errors), output[-1].strip() if output else "it said nothing")
    with tempfile.NamedTemporaryFile("w", prefix="commlens-launcher-", suffix=".log", delete=False) as log:
        log.writelines(output)
    how = f"code {code}" if code >= 0 else f"signal {-code}"
    return f"the launcher ended with {how}: {said}; all it said is in {log.name}"
