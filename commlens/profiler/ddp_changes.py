"""What changes of DistributedDataParallel mean for the installed torch: its arguments, its communication hooks."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from commlens.trace.changes import Change, Hook

if TYPE_CHECKING:
    from collections.abc import Callable

# torch's default of 1000 would keep a short trial from ever compressing; it takes nothing below 2.
POWERSGD_FROM_STEP = 3
_NEEDS_NCCL = ("powersgd", "quantize")


def ddp_class() -> Any:
    """torch's DistributedDataParallel."""
    from torch.nn.parallel.distributed import DistributedDataParallel

    return DistributedDataParallel


def arguments_of(change: Change, known: Iterable[str]) -> dict[str, Any]:
    """What a change passes to DistributedDataParallel; {} where it changes no argument.

    Args:
        known: the arguments that the installed torch has.
    """
    word, value = change.name.removeprefix("ddp."), change.value
    if not change.name.startswith("ddp.") or word in ("last_bucket_cap", "comm_hook"):
        return {}
    if word == "broadcast_buffers" and "forward_sync_buffers" in known:  # its successor; both together are a warning
        return {"forward_sync_buffers": value, "broadcast_buffers": None}
    if word == "bucket_cap_mb" and "bucket_cap_mb_list" in known:  # which would count before it
        return {"bucket_cap_mb": value, "bucket_cap_mb_list": None}
    return {word: list(value) if isinstance(value, tuple) else value}


def missing_argument(change: Change) -> str | None:
    """Why the installed torch cannot take a change, None where it can."""
    known = inspect.signature(ddp_class().__init__).parameters
    absent = [name for name in arguments_of(change, known) if name not in known]
    return f"DistributedDataParallel of this torch has no argument {absent[0]}" if absent else None


def hook_obstacle(hook: Hook | None, arguments: Mapping[str, Any]) -> str | None:
    """Why a model cannot have this communication hook, None where it can.

    Args:
        arguments: that the model is made with.
    """
    if hook is None or hook.name == "none":
        return None
    if arguments.get("mixed_precision") is not None:
        return "mixed_precision brings a communication hook of its own"
    first = next(iter(getattr(arguments["module"], "parameters", tuple)()), None)  # DDP itself refuses what has none
    if hook.name in _NEEDS_NCCL and first is not None and first.device.type == "cpu":
        return "torch's hook for it hangs or fails over Gloo"
    return None


def make_hook(hook: Hook, model: Any) -> tuple[Any, Callable[..., Any]]:
    """State and function to register on a model."""
    from torch.distributed.algorithms import ddp_comm_hooks as hooks

    group = model.process_group
    if hook.name == "powersgd":
        state = hooks.powerSGD.PowerSGDState(group, hook.rank, start_powerSGD_iter=POWERSGD_FROM_STEP)
        return state, hooks.powerSGD.powerSGD_hook
    if hook.name == "quantize":
        return group, hooks.quantization.quantization_pertensor_hook
    if hook.name == "fp16":
        return group, hooks.default.fp16_compress_hook
    return group, hooks.default.bf16_compress_hook if model.device_type != "cpu" else bf16_compress


def bf16_compress(state, bucket):  # type: ignore[no-untyped-def]  # DDP compares annotations, which are strings here
    """torch's bf16_compress_hook, which DDP refuses by its name where there is no NCCL; Gloo adds bfloat16 too."""
    from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import bf16_compress_hook

    return bf16_compress_hook(state, bucket)
