"""Finds the job's models and describes them: parameters, DDP buckets, flags.

Nothing tells which modules are models, so the live objects are searched once,
after the job's first backward (a step that is never analysed) and again when
an optimizer appears that was not there.
"""

from __future__ import annotations

import gc
import inspect
import sys
from typing import Any

_DDP_FLAGS = (
    "find_unused_parameters",
    "gradient_as_bucket_view",
    "static_graph",
    "broadcast_buffers",
    "bucket_bytes_cap",
    "bucket_bytes_cap_default",
    "bucket_bytes_cap_list",
)


def outermost() -> list[Any]:
    """Modules with trainable parameters that are part of no other module."""
    import torch

    modules = [found for found in gc.get_objects() if issubclass(type(found), torch.nn.Module)]
    children = {id(child) for module in modules for child in _children(module)}
    return [
        module
        for module in modules
        if id(module) not in children
        and not issubclass(type(module), torch.jit.ScriptModule)
        and any(parameter.requires_grad for parameter in module.parameters())
    ]


def _children(module: Any) -> list[Any]:
    # A half-built module has no _modules yet.
    return [child for child in module.__dict__.get("_modules", {}).values() if child is not None]


def describe(module: Any) -> dict[str, Any]:
    """The entry of rank.json for one outermost module."""
    wrapper = find_ddp(module)
    return {
        "kind": kind(module),
        "name": type(module).__name__,
        "group": str(wrapper.process_group.group_name) if wrapper is not None else None,
        "flags": ddp_flags(wrapper) if wrapper is not None else {},
        "accepts": accepted(module, wrapper),
        "bucket_bytes": ddp_bucket_bytes(wrapper) if wrapper is not None else [],
        # Places in `parameters`: of each bucket in the order of sending, and as gradients became ready.
        "bucket_parameters": ddp_bucket_parameters(module, wrapper) if wrapper is not None else [],
        "ready_order": ddp_ready_order(module, wrapper) if wrapper is not None else [],
        "parameters": [
            {
                "name": name,
                "shape": list(parameter.shape),
                "dtype": str(parameter.dtype).removeprefix("torch."),
                "num_bytes": parameter.numel() * parameter.element_size(),
                "trainable": parameter.requires_grad,
            }
            for name, parameter in parameters(module)
        ],
    }


def parameters(module: Any) -> list[tuple[str, Any]]:
    """Names and parameters in the order of registration, a shared one once, without those not made yet."""
    from torch.nn.parameter import is_lazy

    return [(name, parameter) for name, parameter in module.named_parameters() if not is_lazy(parameter)]


def find_ddp(module: Any) -> Any | None:
    """The DistributedDataParallel at or below `module`, None where there is none."""
    home = sys.modules.get("torch.nn.parallel.distributed")
    ddp = getattr(home, "DistributedDataParallel", None)
    if ddp is None:
        return None
    return next((found for found in module.modules() if isinstance(found, ddp)), None)


def kind(module: Any) -> str:
    """ "DDP", "FSDP2", "FSDP" or "module"."""
    if find_ddp(module) is not None:
        return "DDP"
    classes = {cls.__name__ for found in module.modules() for cls in type(found).__mro__}
    if "FSDPModule" in classes:
        return "FSDP2"
    return "FSDP" if "FullyShardedDataParallel" in classes else "module"


def accepted(module: Any, wrapper: Any | None) -> list[str]:
    """Names of what this torch lets a job set: DDP's arguments, or the setters of an FSDP2 module."""
    if wrapper is not None:
        ddp = next(cls for cls in type(wrapper).__mro__ if cls.__name__ == "DistributedDataParallel")
        return [name for name in inspect.signature(ddp).parameters if name != "module"]
    if kind(module) != "FSDP2":
        return []
    unit = next(found for found in module.modules() if any(cls.__name__ == "FSDPModule" for cls in type(found).__mro__))
    return sorted(name for name in dir(type(unit)) if name.startswith("set_"))


def ddp_flags(wrapper: Any) -> dict[str, Any]:
    """What DDP was asked for, and the communication hook it uses."""
    flags = {name: getattr(wrapper, name) for name in _DDP_FLAGS if hasattr(wrapper, name)}
    return flags | {"comm_hook": str(_logged(wrapper).get("comm_hook", ""))}


def unused_bytes(module: Any) -> int | None:
    """Bytes of parameters that DDP found without a gradient when it last looked, None where it does not look."""
    wrapper = find_ddp(module)
    if wrapper is None or not wrapper.find_unused_parameters:
        return None
    found = _logged(wrapper).get("unused_parameter_size")
    return int(found) if found is not None else None


def ddp_bucket_bytes(wrapper: Any) -> list[int]:
    """Bytes of DDP's gradient buckets in the order it sends them, from its own log."""
    logged = _logged(wrapper)
    sizes = str(logged.get("rebuilt_bucket_sizes") or logged.get("bucket_sizes") or "")
    return [int(size) for size in sizes.replace(" ", "").split(",") if size.isdigit()]


def ddp_places(module: Any, wrapper: Any) -> list[int]:
    """Place in `parameters(module)` of each parameter that DDP knows by number; [] where they do not correspond."""
    place = {id(parameter): number for number, (_, parameter) in enumerate(parameters(module))}
    numbered = [parameter for parameter in getattr(wrapper, "_module_parameters", ()) if parameter.requires_grad]
    return [place[id(parameter)] for parameter in numbered] if place.keys() >= set(map(id, numbered)) else []


def ddp_bucket_parameters(module: Any, wrapper: Any) -> list[list[int]]:
    """Places of each rebuilt bucket's parameters in the order DDP sends them, [] where it has logged none."""
    logged = str(_logged(wrapper).get("rebuilt_per_bucket_param_indices") or "")
    buckets = [[int(number) for number in bucket.split()] for bucket in logged.split(",") if bucket.strip()]
    places = ddp_places(module, wrapper)
    if sorted(number for bucket in buckets for number in bucket) != list(range(len(places))):
        return []
    return [[places[number] for number in bucket] for bucket in buckets]


def ddp_ready_order(module: Any, wrapper: Any) -> list[int]:
    """Places in the order in which gradients became ready in the step before, [] where DDP has logged none."""
    logged = str(_logged(wrapper).get("prev_iteration_grad_ready_order_indices") or "")
    order = [int(number) for number in logged.replace(",", " ").split()]
    places = ddp_places(module, wrapper)
    return [places[number] for number in order] if max(order, default=-1) < len(places) else []


def awaits_rebuild(module: Any) -> bool:
    """Whether DDP will still change its buckets: it rebuilds them in the second step, and logs it in the third."""
    wrapper = find_ddp(module)
    if wrapper is None or (wrapper.find_unused_parameters and not wrapper.static_graph):
        return False
    return not _logged(wrapper).get("rebuilt_bucket_sizes")


def _logged(wrapper: Any) -> dict[str, Any]:
    return dict(wrapper._get_ddp_logging_data())
