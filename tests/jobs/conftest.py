"""The `launch` fixture: real torchrun jobs on Gloo."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path

import pytest
from job_runs import Job, Launch, execute

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
    """Runs a script, given as text or as a path, under torchrun on ranks of this machine."""

    def run(
        script: str | Path,
        nproc: int = 2,
        *args: str,
        env: Mapping[str, str | None] | None = None,
        timeout: float = 120,
        python: tuple[str, ...] = (),
    ) -> Job:
        if isinstance(script, str):
            (tmp_path / "job.py").write_text(textwrap.dedent(script))
            script = tmp_path / "job.py"
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={nproc}"]
        ranks = ["--no-python", *python] if python else []
        return execute([*torchrun, *ranks, str(script), *args], env or {}, tmp_path, timeout)

    return run
