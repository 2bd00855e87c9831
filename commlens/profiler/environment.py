"""What this rank runs on, as far as it changes communication."""

from __future__ import annotations

import fcntl
import os
import platform
import socket
import struct
import sys
from pathlib import Path
from typing import Any

from commlens._version import __version__

_PREFIXES = ("NCCL_", "TORCH_", "GLOO_", "OMP_", "UCX_", "FI_", "RCCL_", "TORCHELASTIC_")
_NAMES = (
    "CUDA_DEVICE_MAX_CONNECTIONS",
    "CUDA_LAUNCH_BLOCKING",
    "CUDA_VISIBLE_DEVICES",
    "DDP_SET_LAST_BUCKET_CAP",
    "HIP_VISIBLE_DEVICES",
    "LOCAL_RANK",
    "LOCAL_WORLD_SIZE",
    "MASTER_ADDR",
    "MASTER_PORT",
    "MKL_NUM_THREADS",
    "PYTORCH_CUDA_ALLOC_CONF",
    "RANK",
    "WORLD_SIZE",
)
_SIOCGIFADDR = 0x8915  # linux/sockios.h


def settings() -> dict[str, str]:
    """Environment variables that change communication."""
    return {
        name: value[:500] for name, value in sorted(os.environ.items()) if name.startswith(_PREFIXES) or name in _NAMES
    }


def host() -> dict[str, Any]:
    """The machine and the process; `boot_id` tells machines apart, host names may not."""
    return {
        "host": socket.gethostname(),
        "boot_id": _read(Path("/proc/sys/kernel/random/boot_id")),
        "pid": os.getpid(),
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "cores": os.cpu_count(),
        "platform": _platform(),
        "python": platform.python_version(),
    }


def software() -> dict[str, Any]:
    """Versions that ranks should agree on, and this thread's GPU; None where there is none, or it is not yet in use."""
    import torch
    import torch.distributed as dist

    has_nccl = torch.version.cuda is not None and dist.is_available() and dist.is_nccl_available()
    in_use = torch.version.cuda is not None and torch.cuda.is_initialized()  # looking must not begin to use it
    return {
        "commlens": __version__,
        "torch": str(torch.__version__),
        "cuda": torch.version.cuda,
        "nccl": ".".join(map(str, torch.cuda.nccl.version())) if has_nccl else None,
        "gpu": torch.cuda.get_device_name() if in_use else None,
    }


def _platform() -> str:
    # platform.platform() may run `uname -p`: a child of the job's own, seen by its SIGCHLD handler and wait().
    names = os.uname()
    return f"{names.sysname}-{names.release}-{names.machine}"


def job_command() -> list[str]:
    """The job's script and its arguments."""
    return list(sys.argv)


def interfaces(root: Path = Path("/sys/class/net")) -> list[dict[str, Any]]:
    """Network interfaces; speed in Mbit/s, None where the driver tells none."""
    try:
        folders = sorted(root.iterdir())
    except OSError:  # not there, or not to be read
        return []
    return [
        {
            "name": folder.name,
            "index": _positive(_read(folder / "ifindex")),
            "state": _read(folder / "operstate"),
            "speed_mbit_s": _positive(_read(folder / "speed")),
            "mtu": _positive(_read(folder / "mtu")),
            "address": _ipv4(folder.name),
        }
        for folder in folders
    ]


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:  # sysfs answers EINVAL for the speed of a link that is down
        return None


def _positive(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdigit() and int(text) > 0 else None


def _ipv4(name: str) -> str | None:
    request = struct.pack("256s", name.encode()[:15])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            return socket.inet_ntoa(fcntl.ioctl(probe.fileno(), _SIOCGIFADDR, request)[20:24])
        except OSError:
            return None
