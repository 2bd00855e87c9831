"""The plugin and its driver, compiled once a test session, and runs of the driver."""

import atexit
import functools
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest

from commlens.profiler.nccl_plugin import LIBRARY, compile_command
from commlens.trace.nccl.log import Log, read_log

DRIVER = Path(__file__).parent / "drive.c"
VERSIONS = range(1, 8)
WITH_DEVICE_TIMES = range(4, 8)
DEVICE_BEHIND_NS, DRIFT = 987654321012, 20e-6  # as in drive.c


@functools.cache
def built(sanitizer: str = "") -> tuple[Path, Path]:
    """The plugin and the driver, with a sanitizer if one is named; skips the test where they cannot be had."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler")
    folder = Path(tempfile.mkdtemp(prefix="commlens-nccl-"))
    atexit.register(shutil.rmtree, folder)
    more = [f"-fsanitize={sanitizer}", "-g", "-O1"] if sanitizer else []
    library, driver = folder / LIBRARY, folder / "drive"
    _compile([*compile_command(compiler, library), "-Werror", *more], sanitizer)
    flags = ["-O2", "-std=c11", "-Wall", "-Wextra", "-Werror", "-pthread", *more]
    _compile([compiler, *flags, "-o", os.fspath(driver), os.fspath(DRIVER), "-ldl"], sanitizer)
    return library, driver


def _compile(command: list[str], sanitizer: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if sanitizer and done.returncode and f"lib{_runtime(sanitizer)}" in done.stderr.replace("-l", "lib"):
        pytest.skip(f"no library for -fsanitize={sanitizer}")
    assert not done.returncode, done.stderr


def _runtime(sanitizer: str) -> str:
    return "tsan" if sanitizer == "thread" else "asan"


def drive(
    folder: Path, scenario: str, version: int, *numbers: object, sanitizer: str = "", **variables: str
) -> list[dict[str, Any]]:
    """What the driver printed; its files are in `folder`."""
    library, driver = built(sanitizer)
    command = [os.fspath(driver), os.fspath(library), scenario, str(version), *map(str, numbers)]
    done = subprocess.run(
        command, env=environment(folder, **variables), capture_output=True, text=True, timeout=120, check=False
    )
    assert not done.returncode, done.stderr[-3000:]
    return [{**json.loads(line), "said": done.stderr} for line in done.stdout.splitlines()]


def environment(folder: Path, **variables: str) -> dict[str, str]:
    return {**os.environ, "COMMLENS_NCCL_FOLDER": os.fspath(folder), **variables}


def the_file(folder: Path) -> Path:
    (found,) = folder.glob("nccl-*.events")
    return found


def the_log(folder: Path) -> Log:
    return read_log(the_file(folder))
