"""Changes FSDP2's settings in the job, without a change of its code.

`fully_shard` is a function that jobs have imported before anything of ours runs. So the settings are changed through
FSDPModule's own setters, when the root module's first forward makes them final. Whatever goes wrong, the model runs as
the job asked.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, Protocol

from commlens.profiler import live
from commlens.trace.changes import Change

RESHARD: Final = "fsdp.reshard_after_forward"
PREFETCH: Final = "fsdp.prefetch"
REDUCE_DTYPE: Final = "fsdp.reduce_dtype"


class Outcome(Protocol):
    """Who is told what became of the changes."""

    def made(self, overridden: Mapping[str, Any]) -> None:
        """A model has them."""

    def not_made(self, reason: str) -> None:
        """A model runs as the job asked."""


def why_not() -> str | None:
    """Why the installed torch's FSDP2 cannot be changed, None where it can."""
    try:
        from torch.distributed.fsdp import FSDPModule
        from torch.distributed.fsdp._fully_shard._fsdp_state import FSDPState
    except ImportError:
        return "this torch has no FSDP2 of the known form"
    known = hasattr(FSDPState, "_lazy_init") and hasattr(FSDPModule, "set_reshard_after_forward")
    return None if known else "this torch has no FSDP2 of the known form"


def install(changes: Sequence[Change], outcome: Outcome) -> None:
    """Puts the changes into every FSDP2 model whose first forward is still to come."""
    from torch.distributed.fsdp._fully_shard import _fsdp_state

    states: Any = _fsdp_state.FSDPState
    wanted = {change.name: change.value for change in changes}
    original = states._lazy_init
    made: list[bool] = []  # of each model, whether it was changed

    @functools.wraps(original)
    def lazy_init(state: Any) -> None:
        if state._is_root is None:
            reason = _change(state, wanted)
            if reason is None:
                outcome.made({})
            elif not made:  # each layer may be a model of its own: once is enough
                outcome.not_made(reason)
            made.append(reason is None)
        original(state)

    states._lazy_init = lazy_init


def _change(state: Any, wanted: Mapping[str, Any]) -> str | None:
    """Changes one model; why it could not be, None where it was."""
    try:
        from torch.distributed.fsdp import FSDPModule

        units = [module for root in state._modules for module in root.modules() if isinstance(module, FSDPModule)]
        below = PREFETCH in wanted or wanted.get(RESHARD) is True
        if below and len(units) < 2:
            return "the model has no FSDP2 units below its root"
        if REDUCE_DTYPE in wanted:
            _reduce_in(units, str(wanted[REDUCE_DTYPE]))
        if RESHARD in wanted:
            _reshard(units, bool(wanted[RESHARD]))
        if PREFETCH in wanted:
            _prefetch(units, int(wanted[PREFETCH]))
    except Exception as error:  # noqa: BLE001 - the boundary inside the job
        return f"{type(error).__name__}: {live.one_line(error)}"
    return None


def _reshard(units: Sequence[Any], after_forward: bool) -> None:
    """The root alone stays as it is where parameters are to be given up: backward needs it first."""
    for unit in units[1:] if after_forward else units:
        unit.set_reshard_after_forward(after_forward, recurse=False)


def _prefetch(units: Sequence[Any], ahead: int) -> None:
    """Units are taken to run in the order of their registration, as those of the simulator in that of their gathers."""
    for place, unit in enumerate(units):
        unit.set_modules_to_forward_prefetch(list(units[place + 1 : place + 1 + ahead]))


def _reduce_in(units: Sequence[Any], dtype: str) -> None:
    import torch

    groups: list[Any] = []
    for unit in units:
        state = unit._get_fsdp_state()
        own = getattr(state, "_fsdp_param_groups", None)  # before torch 2.12 one, or None
        groups += own if own is not None else filter(None, [state._fsdp_param_group])
    policies = [replace(group.mp_policy, reduce_dtype=getattr(torch, dtype)) for group in groups]
    for group, policy in zip(groups, policies, strict=True):
        group.mp_policy = policy
