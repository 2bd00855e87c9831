"""Whether a fix can be applied where the job will run, asked before the job is run for it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from commlens.errors import CommlensError, UsageError
from commlens.trace.changes import Change, joined, obstacle

_PATIENCE_S = 300.0
_PYTHON = re.compile(r"python[\d.]*")
_SHEBANG = re.compile(rb"(?:/usr/bin/env +(python[\d.]*)|[ !\"'](/[^\s\"']*python[\d.]*))")
_PROBE = """
import json, sys
attached = "commlens._boot" in sys.modules
from commlens.profiler.fix import why_not
from commlens.trace.changes import parse_all
print(json.dumps({"attached": attached, "failed": why_not(parse_all(sys.argv[1]))}))
"""


def check_applicable(changes: Sequence[Change], backend: str | None, command: Sequence[str]) -> None:
    """Refuse a fix that the job could not apply.

    Args:
        backend: of the job's recorded run, None where there is none.
        command: that starts the job.

    Raises:
        UsageError: No job could apply it, or the torch that will run this one cannot.
        CommlensError: The job's Python does not start with commlens in it.
    """
    for change in changes:
        why = obstacle(change, backend)
        if why is not None:
            raise UsageError(f"{change} cannot be tried: {why}")
    python = interpreter_of(command)
    if python is not None:
        _probe(python, changes)


def interpreter_of(command: Sequence[str]) -> str | None:
    """The Python that a command's launcher or job runs in; None where that cannot be told."""
    launcher = shutil.which(command[0])
    if launcher is not None and not _PYTHON.fullmatch(Path(launcher).name):
        found = _SHEBANG.search(_head(launcher))
        if found:
            return shutil.which((found[1] or found[2]).decode())
    return next((shutil.which(word) for word in command if _PYTHON.fullmatch(Path(word).name)), None)


def _head(path: str) -> bytes:
    """What a script says of its interpreter: the first lines; pip writes a long path into the second."""
    try:
        with Path(path).open("rb") as file:
            head = file.read(400)
    except OSError:
        return b""
    return b"\n".join(head.split(b"\n")[:2]) if head.startswith(b"#!") else b""


def _probe(python: str, changes: Sequence[Change]) -> None:
    fix = joined(changes)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COMMLENS")}
    environment["COMMLENS_FIX"] = fix
    command = [python, "-c", _PROBE, fix]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=_PATIENCE_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CommlensError(f"cannot ask {python} about its torch: {error}") from error
    answer = _answer(done.stdout)
    if done.returncode != 0 or answer is None:
        said = (done.stderr.strip() or "it said nothing").splitlines()[-1]
        raise CommlensError(f"{python} cannot apply a fix: {said}; install commlens and torch for it")
    if not answer["attached"]:
        raise CommlensError(f"{python} does not run commlens.pth at its start; install commlens into its site-packages")
    for name, reason in answer["failed"].items():
        raise UsageError(f"{name} cannot be tried: {reason}")


def _answer(output: str) -> dict[str, Any] | None:
    try:
        said = json.loads(output.strip().splitlines()[-1])
    except (ValueError, IndexError):
        return None
    return said if isinstance(said, dict) and {"attached", "failed"} <= said.keys() else None
