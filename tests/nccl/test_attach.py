"""The plugin handed to NCCL by the recorder's attach, in processes of their own: it stays loaded for good."""

import atexit
import functools
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import driven

from commlens.profiler import nccl_plugin
from commlens.trace.nccl.log import read_log

# NCCL, as far as the plugin sees it: one communicator, and a collective whose kernels begin and end.
NCCL = """
import ctypes, os
from commlens.profiler import nccl_plugin

def run(operations):
    library = ctypes.CDLL(os.environ["NCCL_PROFILER_PLUGIN"])
    table = (ctypes.c_void_p * 6).in_dll(library, "ncclProfiler_v6")
    call = lambda place, *kinds: ctypes.CFUNCTYPE(ctypes.c_int, *kinds)(table[place])
    pointer, number = ctypes.c_void_p, ctypes.c_int
    context, mask, handle, kernel = pointer(), number(), pointer(), pointer()
    init = call(1, pointer, ctypes.c_uint64, pointer, ctypes.c_char_p, number, number, number, pointer)
    start, stop = call(2, pointer, pointer, pointer), call(3, pointer)
    record, finalize = call(4, pointer, number, pointer), call(5, pointer)
    assert init(ctypes.byref(context), 7, ctypes.byref(mask), b"world", 1, 2, 0, None) == 0
    before = mask.value
    nccl_plugin.pause()
    assert mask.value == 0
    nccl_plugin.resume()
    assert mask.value == before != 0
    word, time = ctypes.create_string_buffer(b"AllReduce"), ctypes.c_uint64(5)
    for _ in range(operations):
        event = (ctypes.c_uint64 * 16)()
        event[0], event[4], event[10] = 2, ctypes.addressof(word), 1  # kind, func, channels
        start(context, ctypes.byref(handle), event)
        stop(handle)
        event = (ctypes.c_uint64 * 16)()
        event[0], event[1], event[4] = 64, handle.value, 3  # kind, parent, device's time
        start(context, ctypes.byref(kernel), event)
        record(kernel, 22, ctypes.byref(time))
        stop(kernel)
    finalize(context)
"""


def run(code: str, tmp_path: Path, cache: Path | None = None, **variables: str) -> str:
    """What a process says in which the plugin is built, or is to be found in `cache`."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("NCCL", "COMMLENS"))}
    environment |= {"COMMLENS_CACHE": str(cache or built_cache()), **variables}
    done = subprocess.run(
        [sys.executable, "-c", NCCL + code], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert not done.returncode, done.stderr
    return done.stdout + done.stderr


@functools.cache
def built_cache() -> Path:
    """A cache with the plugin in it."""
    driven.built()
    folder = Path(tempfile.mkdtemp(prefix="commlens-cache-"))
    atexit.register(shutil.rmtree, folder)
    run("from commlens.profiler import built; built.build_nccl_plugin()", folder, folder)
    return folder


FOUND = "from commlens.profiler import built; path = built.nccl_plugin().path\n"
AS_IF_CUDA = "nccl_plugin._has_nccl = lambda: True\n"


def test_what_is_recorded_before_the_folder_is_known_is_kept(tmp_path: Path) -> None:
    code = (
        FOUND
        + AS_IF_CUDA
        + (
            "nccl_plugin.attach()\n"
            "assert os.environ['NCCL_PROFILER_PLUGIN'] == str(path)\n"
            "run(3)\n"
            "from pathlib import Path\n"
            "assert not list(Path.cwd().rglob('*.events'))\n"
            "nccl_plugin.open_in(Path('rank-00000').absolute())\n"
            "nccl_plugin.open_in(Path('another').absolute())\n"
            "run(2)\n"
            "print(nccl_plugin.statistics()['operations'])\n"
        )
    )
    assert run(code, tmp_path) == "5\n"
    (file,) = tmp_path.rglob("*.events")
    assert file.parent.name == "rank-00000"
    log = read_log(file)
    assert len(log.operations) == 5
    assert {each.name for each in log.communicators.values()} == {"world"}


def test_a_jobs_own_plugin_is_left_alone(tmp_path: Path) -> None:
    code = FOUND + AS_IF_CUDA + "nccl_plugin.attach(); print(os.environ['NCCL_PROFILER_PLUGIN'])"
    assert run(code, tmp_path, NCCL_PROFILER_PLUGIN="none") == "none\n"


ATTACHED = "nccl_plugin.attach(); print(os.environ.get('NCCL_PROFILER_PLUGIN'), nccl_plugin.statistics())"


def test_without_nccl_nothing_is_set(tmp_path: Path) -> None:
    assert run(ATTACHED, tmp_path) == "None {}\n"


def test_without_the_plugin_nothing_is_set(tmp_path: Path) -> None:
    assert run(AS_IF_CUDA + ATTACHED, tmp_path, tmp_path / "empty") == "None {}\n"


def test_a_plugin_that_does_not_load_costs_one_line(tmp_path: Path) -> None:
    shutil.copytree(built_cache(), tmp_path / "cache")
    (library,) = tmp_path.glob("cache/**/*.so")
    library.write_bytes(b"no library")
    code = AS_IF_CUDA + "nccl_plugin.attach(); nccl_plugin.pause(); print(os.environ.get('NCCL_PROFILER_PLUGIN'))"
    said = run(code, tmp_path, tmp_path / "cache")
    assert said.startswith("None\n")
    assert said.count("NCCL's operations are not recorded") == 1


def test_a_child_begins_anew(tmp_path: Path) -> None:
    code = (
        FOUND
        + AS_IF_CUDA
        + (
            "from pathlib import Path\n"
            "nccl_plugin.attach(); run(1)\n"
            "child = os.fork()\n"
            "if child == 0:\n"
            "    assert 'NCCL_PROFILER_PLUGIN' not in os.environ\n"
            "    nccl_plugin.attach(); run(2); nccl_plugin.open_in(Path('child').absolute()); os._exit(0)\n"
            "assert os.waitpid(child, 0)[1] == 0\n"
            "nccl_plugin.open_in(Path('parent').absolute())\n"
        )
    )
    run(code, tmp_path)
    found = {file.parent.name: len(read_log(file).operations) for file in tmp_path.rglob("*.events")}
    assert found == {"child": 2, "parent": 1}


def test_sources_are_shipped() -> None:
    assert {path.suffix for path in nccl_plugin.SOURCES.iterdir()} == {".c", ".h"}
    command = nccl_plugin.compile_command("cc", Path("out.so"))
    assert [Path(each).name for each in command if each.endswith(".c")] == sorted(
        path.name for path in nccl_plugin.SOURCES.glob("*.c")
    )
