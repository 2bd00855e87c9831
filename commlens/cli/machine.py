"""Facts of this machine, tried out rather than assumed: for `commlens doctor`."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import site
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from commlens._version import __version__

if TYPE_CHECKING:
    from commlens.analyzers.health.machine import Built, Network, Torch, Trial
    from commlens.profiler.built import Compiler, Part

JOB: Final = Path(__file__).with_name("doctor_job.py")
PATIENCE_S: Final = 120.0
_NEEDED: Final = ("torch", "numpy", "pyarrow")


def versions() -> dict[str, str | None]:
    """Versions of what commlens stands on, None where it is not installed."""
    return {"commlens": __version__, "python": platform.python_version(), **{name: _version(name) for name in _NEEDED}}


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def attached_by() -> str | None:
    """The folder whose commlens.pth attaches the recorder, None where there is none."""
    folders = [*site.getsitepackages(), site.getusersitepackages()]
    return next((folder for folder in folders if _is_file(Path(folder) / "commlens.pth")), None)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a folder that this user may not look into
        return False


def has_torch() -> bool:
    """Whether there is a torch to import; it may be broken."""
    return importlib.util.find_spec("torch") is not None


def torch_facts() -> Torch:
    """Backends of this torch and the devices it sees."""
    from commlens.analyzers.health.machine import Torch

    plugin = os.environ.get("NCCL_PROFILER_PLUGIN", "")
    try:
        import torch
        import torch.distributed as dist
    except (ImportError, OSError) as error:  # OSError: a shared library that torch needs is not there
        return Torch(error=" ".join(str(error).split()) or type(error).__name__)
    if not dist.is_available():
        return Torch(distributed=False)
    named = {
        "gloo": dist.is_gloo_available(),
        "nccl": dist.is_nccl_available(),
        "mpi": dist.is_mpi_available(),
        "ucc": dist.is_ucc_available(),
    }
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    nccl = ".".join(map(str, torch.cuda.nccl.version())) if named["nccl"] and torch.version.cuda is not None else None
    return Torch("", True, tuple(name for name, there in named.items() if there), gpus, nccl, plugin)


def try_recording() -> Trial:
    """Records a one-rank job in a process of its own and looks at what arrived."""
    from commlens.analyzers.health.machine import Trial

    try:
        with tempfile.TemporaryDirectory() as folder:
            return _tried(Path(folder))
    except subprocess.TimeoutExpired:
        return Trial(error=f"the job did not end within {PATIENCE_S:g} s")
    except OSError as error:
        return Trial(error=f"the job could not be tried: {error.strerror or error}")


def _tried(folder: Path) -> Trial:
    from commlens.analyzers.health.machine import Trial

    asked = {name: value for name, value in os.environ.items() if name in ("COMMLENS_CACHE", "COMMLENS_RECORDER")}
    others = {name: value for name, value in os.environ.items() if not name.startswith("COMMLENS")}
    environment = {**others, **asked, "COMMLENS": str(folder)}
    command = [sys.executable, str(JOB)]
    job = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE_S)
    if job.returncode != 0:
        last = (job.stderr.strip().splitlines() or ["no message"])[-1]
        return Trial(error=f"the job ended with code {job.returncode}: {last}")
    return _recorded(folder, job.stderr)


def _recorded(folder: Path, stderr: str) -> Trial:
    from commlens.analyzers.health.machine import Trial, phases_of
    from commlens.errors import TraceError
    from commlens.trace import open_run

    try:
        rank = open_run(folder).ranks[0]
        rows = rank.table("collectives").select(["op", "completed_ns"]).to_pylist()
        phases = set(rank.table("phases")["phase"].to_pylist())
    except (TraceError, KeyError):
        warnings = (line for line in stderr.splitlines() if line.startswith("commlens"))
        return Trial(error=next(warnings, "no run was written"))
    cost = (rank.info.get("overhead") or {}).get("trampoline_ns")
    return Trial(
        attached=True,
        seen=frozenset(row["op"] for row in rows),
        endless=tuple(sorted({row["op"] for row in rows if row["completed_ns"] is None})),
        phases=phases_of(phases),
        hooks=rank.info.get("hooks") or {},
        entering_us=cost / 1000 if cost is not None else None,
    )


def compiled_parts() -> list[Built]:
    """What `commlens build` has made for this torch, or what it would need."""
    from commlens.profiler import built

    return [
        _part("native recorder", built.native(), built.CXX),
        _part("NCCL plugin", built.nccl_plugin(), built.CC),
    ]


def _part(name: str, part: Part, compiler: Compiler) -> Built:
    from commlens.analyzers.health.machine import Built
    from commlens.errors import BuildError

    try:
        found = part.found()
    except OSError as error:
        return Built(name, obstacle=f"cannot look into {part.path.parent}: {error.strerror}")
    if found is not None:
        return Built(name, str(found), str(part.note().get("compiler", "")))
    try:
        return Built(name, compiler=compiler.path())
    except BuildError as error:
        return Built(name, obstacle=str(error))


def network() -> Network:
    """Interfaces, their counters, and the address that Gloo would bind to."""
    from commlens.analyzers.health.machine import Network
    from commlens.profiler.counters.probe import look
    from commlens.profiler.environment import interfaces

    answer = look()
    told = tuple((link, tuple(words)) for link, words in answer.told)
    return Network(tuple(interfaces()), told, tuple(answer.refused), own_address())


def own_address() -> str:
    """The address that this host's name resolves to, if one can bind to it; "" where not."""
    try:
        found = socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET, socket.SOCK_STREAM)
    except OSError:
        return ""
    return next((str(each[4][0]) for each in found if _binds(str(each[4][0]))), "")


def _binds(address: str) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True


def cores() -> int:
    """That this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def asks_for_native() -> bool:
    """Whether the native recorder is used where it is compiled."""
    return os.environ.get("COMMLENS_RECORDER", "native") != "python"
