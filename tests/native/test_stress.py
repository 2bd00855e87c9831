"""The native recorder's slots and tickets under threads, compiled with sanitizers; see stress.cpp."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from commlens.errors import BuildError
from commlens.profiler.built import CXX, HERE

SANITIZERS = {"thread": "thread", "memory": "address,undefined"}
FLAGS = ("-O1", "-g", "-std=c++20", "-pthread", "-fno-sanitize-recover=undefined")
EMPTY = "int main() { return 0; }\n"


def _compiled(source: Path, program: Path, sanitizer: str) -> subprocess.CompletedProcess[str]:
    try:
        compiler = CXX.path()
    except BuildError:
        pytest.skip("no C++ compiler here")
    command = [compiler, *FLAGS, f"-fsanitize={sanitizer}", f"-I{HERE / 'native'}", os.fspath(source)]
    return _run([*command, "-o", os.fspath(program)])


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.parametrize("name", SANITIZERS)
def test_no_event_is_lost_or_mixed_with_another(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty.cpp").write_text(EMPTY)
    probe = _compiled(tmp_path / "empty.cpp", tmp_path / "empty", SANITIZERS[name])
    if probe.returncode or _run([os.fspath(tmp_path / "empty")]).returncode:
        pytest.skip(f"no library of -fsanitize={SANITIZERS[name]} here, or it does not run on this kernel")
    built = _compiled(Path(__file__).with_name("stress.cpp"), tmp_path / "stress", SANITIZERS[name])
    assert built.returncode == 0, built.stderr
    done = _run([os.fspath(tmp_path / "stress")])
    assert (done.returncode, done.stdout.strip()) == (0, "0 wrong"), done.stdout + done.stderr
