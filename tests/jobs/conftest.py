"""The `launch` fixture: real torchrun jobs on Gloo."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path

import pytest
from job_runs import Job, Launch, execute, torchrun

from commlens.profiler.built import build_native


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Environment of a job that uses the native recorder, compiled once for all tests that ask for it."""
    if not any(map(shutil.which, ("c++", "g++", "clang++"))):
        pytest.skip("no C++ compiler here")
    folder = tmp_path_factory.mktemp("built")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(os.environ, "COMMLENS_CACHE", str(folder))
        build_native()
    return {"COMMLENS_RECORDER": "native", "COMMLENS_CACHE": str(folder)}


@pytest.fixture
def launch(tmp_path: Path) -> Launch:
    """Runs a script, given as text or as a path, under torchrun on ranks of this machine.

    `as_command`: torchrun is started as a user does, not as `agent` does.
    """

    def run(
        script: str | Path,
        nproc: int = 2,
        *args: str,
        env: Mapping[str, str | None] | None = None,
        timeout: float = 120,
        python: tuple[str, ...] = (),
        as_command: bool = False,
    ) -> Job:
        if isinstance(script, str):
            (tmp_path / "job.py").write_text(textwrap.dedent(script))
            script = tmp_path / "job.py"
        ranks = ["--no-python", *python] if python else []
        arguments = ["--standalone", f"--nproc-per-node={nproc}", *ranks, str(script), *args]
        if as_command:
            return execute([sys.executable, "-m", "torch.distributed.run", *arguments], env or {}, tmp_path, timeout)
        return torchrun(arguments, env or {}, tmp_path, timeout)

    return run
