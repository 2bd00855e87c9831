"""NCCL's profiler plugin: how it is compiled, handed to NCCL, told where to write, paused and resumed.

The plugin (`commlens/profiler/nccl/`) is loaded before NCCL looks for it, by the same path, so that NCCL and this
module share one copy. It keeps what happens until the recorder knows the rank's folder.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Any, Final

from commlens.profiler import live

SOURCES: Final = Path(__file__).parent / "nccl"
LIBRARY: Final = "libnccl-profiler-commlens.so"  # NCCL 2.27.3 opens only names of this form by their path
ASKS_FOR: Final = "NCCL_PROFILER_PLUGIN"

_VERSIONS: Final = range(1, 8)
_LONGEST: Final = 254  # bytes of a path that NCCL keeps
FLAGS: Final = ("-O2", "-fPIC", "-shared", "-std=c11", "-Wall", "-Wextra", "-fvisibility=hidden", "-pthread")
# NCCL closes the library with its last communicator, while a thread of ours may still wait for a disk.
_LINKED: Final = ("-Wl,-z,nodelete", "-ldl")
_library: Any = None
_opened = False


class Statistics(ctypes.Structure):
    """What the plugin has seen and lost since the process began; `commlens_nccl_stats` fills it in."""

    _fields_ = (
        *((name, ctypes.c_uint64) for name in ("operations", "no_slot", "no_room", "no_step", "late", "foreign")),
        *((name, ctypes.c_uint64) for name in ("cut_off", "written_bytes")),
        *((name, ctypes.c_int32) for name in ("error", "mask", "communicators", "reserved")),
    )


def compile_command(compiler: str, output: Path) -> list[str]:
    """How the plugin is compiled: `compiler` is any for C11, `output` the library."""
    sources = sorted(os.fspath(path) for path in SOURCES.glob("*.c"))
    return [compiler, *FLAGS, "-o", os.fspath(output), *sources, *_LINKED]


def tables(path: Path) -> list[str]:
    """The tables of NCCL's profiler interface that the library at `path` has; none where it does not load."""
    try:
        library = ctypes.CDLL(os.fspath(path), mode=os.RTLD_LOCAL | os.RTLD_NOW)
    except OSError:
        return []
    return [name for name in (f"ncclProfiler_v{version}" for version in _VERSIONS) if hasattr(library, name)]


def attach() -> None:
    """Hands the plugin to NCCL, where it is built, NCCL is there and the job brings no plugin of its own.

    To be called before the first communicator is made. A rank whose plugin does not load is recorded without it.
    """
    global _library
    if _library is not None or os.environ.get(ASKS_FOR) or not _has_nccl():
        return
    from commlens.profiler.built import nccl_plugin

    path = nccl_plugin().found()
    if path is None or len(os.fsencode(path)) > _LONGEST:
        return
    try:
        library = ctypes.CDLL(os.fspath(path), mode=os.RTLD_LOCAL | os.RTLD_NOW)
    except OSError as error:
        live.warn(f"NCCL's operations are not recorded: {live.one_line(error)}")
        return
    library.commlens_nccl_hold()
    os.environ[ASKS_FOR] = os.fspath(path)
    os.register_at_fork(after_in_child=_forget)
    _library = library


def _has_nccl() -> bool:
    import torch
    import torch.distributed as dist

    return torch.version.cuda is not None and dist.is_nccl_available()


def _forget() -> None:
    """A forked child's plugin has let go of the parent's; it is the child's to attach it again."""
    global _library, _opened
    if _library is not None:
        _library, _opened = None, False
        os.environ.pop(ASKS_FOR, None)


def open_in(folder: Path) -> None:
    """The rank's folder is known: what was kept is written, and what follows. Further calls do nothing."""
    global _opened
    if _library is None or _opened:
        return
    _opened = True
    error = _library.commlens_nccl_open(os.fsencode(folder))
    if error:
        live.warn(f"NCCL's operations are not recorded in {folder}: {os.strerror(error)}")


def pause() -> None:
    """NCCL tells of no further operations; of those under way it still does."""
    if _library is not None:
        _library.commlens_nccl_pause()


def resume() -> None:
    """NCCL tells of operations again."""
    if _library is not None:
        _library.commlens_nccl_resume()


def statistics() -> dict[str, int]:
    """What the plugin has seen and lost; empty where there is none."""
    if _library is None:
        return {}
    found = Statistics()
    _library.commlens_nccl_stats(ctypes.byref(found))
    return {name: int(getattr(found, name)) for name, *_ in Statistics._fields_ if name != "reserved"}
