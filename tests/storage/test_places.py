"""Addresses of storage that is in memory, and of this machine's files; what a local run must not load."""

from __future__ import annotations

import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from made import RANKS, packed, report_of, write_hosts

from commlens.trace import open_run
from commlens.trace.storage.places import is_remote, place


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_hosts(tmp_path_factory.mktemp("memory") / "run")


@pytest.fixture
def memory() -> Iterator[str]:
    """The address of an empty folder."""
    fsspec = pytest.importorskip("fsspec")
    pytest.importorskip("upath")
    address = f"memory://{uuid.uuid4().hex}"
    yield address
    system = fsspec.filesystem("memory")
    if system.exists(address):
        system.rm(address, recursive=True)


def put(folder: Path, address: str) -> str:
    import fsspec

    system = fsspec.filesystem("memory")
    for path in folder.rglob("*"):
        if path.is_file():
            system.pipe_file(f"{address}/{path.relative_to(folder).as_posix()}", path.read_bytes())
    return address


def test_a_run_in_memory(tmp_path: Path, run: Path, memory: str) -> None:
    there = put(run, f"{memory}/plain")
    assert report_of(there) == report_of(run)
    packs = packed(run, tmp_path / "packs")
    assert report_of(put(packs, f"{memory}/packs")) == report_of(packs)
    assert report_of(place(there)) == report_of(run)  # a path of fsspec instead of its address


def test_a_folder_of_runs_in_memory(run: Path, memory: str) -> None:
    put(run, f"{memory}/runs/one")
    assert open_run(f"{memory}/runs").notes == []
    put(run, f"{memory}/runs/two")
    assert "holds 2 runs" in open_run(f"{memory}/runs").notes[0]


def test_an_address_of_this_machine_is_a_plain_path(run: Path) -> None:
    assert place(f"file://{run}") == run
    assert not is_remote(place(f"file://{run}"))
    assert list(open_run(f"file://{run}").ranks) == list(range(RANKS))
    assert place("runs") == place(Path("runs")) == Path("runs")


def test_a_local_report_loads_nothing_of_this(run: Path) -> None:
    code = (
        "import sys\n"
        "from commlens.cli import app\n"
        f"sys.argv = ['commlens', 'report', {str(run)!r}]\n"
        "try:\n    app.main()\nexcept SystemExit:\n    pass\n"
        "print('LOADED', *sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    loaded = set(done.stdout.rpartition("LOADED")[2].split())
    assert "commlens.trace.storage.files" in loaded
    assert not loaded & {"fsspec", "upath", "s3fs", "aiohttp", "pyarrow.parquet", "asyncio"}
