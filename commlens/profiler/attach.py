"""Applies fixes, starts and stops recording around the job's own process group calls.

Every way of launching a job ends in `init_process_group`, so this is the one
place to begin, whatever started the ranks.
The job always survives: what goes wrong here costs the recording, never the job.
"""

from __future__ import annotations

import functools
import os
import re
import sys
from typing import TYPE_CHECKING, Any

from commlens.profiler import live

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

DEFAULT_FOLDER = "commlens-runs"
_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]*)://(.*)", re.IGNORECASE)
_HERE = ("file", "local")  # schemes of this machine's own folders, as for the commands that read


def install(c10d: ModuleType) -> None:
    """Wraps `init_process_group` and `destroy_process_group` of `c10d`.

    Args:
        c10d: The module torch.distributed.distributed_c10d, before
            `torch.distributed` has re-exported its names.
    """
    for name, before, after in (
        ("init_process_group", _before_init, _after_init),
        ("destroy_process_group", None, _after_destroy),
    ):
        original = getattr(c10d, name, None)
        if original is not None and not hasattr(original, "_commlens"):
            setattr(c10d, name, _between(before, original, after))


def _between(
    before: Callable[[], None] | None, original: Callable[..., Any], after: Callable[[], None]
) -> Callable[..., Any]:
    @functools.wraps(original)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        if before is not None:
            live.guarded(before)
        result = original(*args, **kwargs)
        live.guarded(after)
        return result

    wrapper._commlens = True  # type: ignore[attr-defined]
    return wrapper


def _before_init() -> None:
    if os.environ.get("COMMLENS_FIX"):
        from commlens.profiler import fix

        fix.apply()
    from commlens._boot import recording

    if recording():
        from commlens.profiler import nccl_plugin

        nccl_plugin.attach()


def _after_init() -> None:
    from commlens._boot import recording

    if not recording():
        return
    import torch.distributed as dist

    from commlens.profiler import limits, nccl_plugin

    if dist.get_rank() == 0 and (scheme := _other_storage()):
        live.warn(
            f"a job does not write to {scheme}://, as COMMLENS asks: recording into {requested_folder()};"
            f" copy the run when the job has ended{' (aws s3 sync)' if scheme == 's3' else ''}"
        )
    if live.recorder is None and not limits.is_recorded(dist.get_rank(), dist.get_world_size()):
        nccl_plugin.pause()
        return
    from commlens.profiler.recorder import start

    start(requested_folder())


def _after_destroy() -> None:
    if live.recorder is not None:
        live.recorder.flush_soon()


def requested_folder() -> str:
    """Absolute path of the folder that COMMLENS asks for; the usual one where that is no folder but an address."""
    value = os.environ.get("COMMLENS", "1").strip()
    address = _ADDRESS.fullmatch(value)
    if address is not None:
        value = address[2] if address[1].lower() in _HERE and address[2] else DEFAULT_FOLDER
    wanted = DEFAULT_FOLDER if value.lower() in ("1", "on", "true", "yes") else value
    return os.path.abspath(os.path.expanduser(wanted))  # noqa: PTH100, PTH111 - pathlib is not needed here


def _other_storage() -> str | None:
    """Scheme of the storage that COMMLENS names, None where it names a folder; the rest may hold a password."""
    address = _ADDRESS.fullmatch(os.environ.get("COMMLENS", "").strip())
    scheme = None if address is None else address[1].lower()
    return None if scheme in _HERE else scheme


def record(folder: str | os.PathLike[str] | None = None) -> None:
    """Records this process from now on, or from its next `init_process_group`.

    The same as running the job with COMMLENS set, for launchers that start
    Python without site-packages' `.pth` files. Call it early in the script.

    Args:
        folder: Folder that receives the run; `./commlens-runs` when not given.
    """
    os.environ["COMMLENS"] = os.fspath(folder) if folder is not None else os.environ.get("COMMLENS") or "1"
    import torch.distributed as dist

    if not dist.is_available():
        live.warn("this torch has no torch.distributed; nothing is recorded")
        return
    install(sys.modules["torch.distributed.distributed_c10d"])
    for name in ("init_process_group", "destroy_process_group"):
        setattr(dist, name, getattr(dist.distributed_c10d, name))
    if dist.is_initialized():
        live.guarded(_before_init)
        live.guarded(_after_init)
