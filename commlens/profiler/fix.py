"""Applies the changes that COMMLENS_FIX names to this process, recorded or not.

All of them or none: where one cannot be applied the job runs as it is, and says so in one line.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

from commlens.errors import CommlensError
from commlens.profiler import live
from commlens.trace.changes import Change, Hook, obstacle, parse_all

VARIABLE = "COMMLENS_FIX"
DDP, FSDP = "ddp.", "fsdp."
_NO_MODEL = {DDP: "no DistributedDataParallel was made", FSDP: "no FSDP2 model ran"}
_current: Fix | None = None


class Fix:
    """The changes asked for, and what became of them.

    Attributes:
        changes: what is asked for.
        applied: those in effect; of DistributedDataParallel once a model was made with them.
        failed: why not, by change.
    """

    def __init__(self) -> None:
        self.changes: tuple[Change, ...] = ()
        self.applied: set[Change] = set()
        self.failed: dict[str, str] = {}

    def begin(self, text: str) -> None:
        """Sets variables, and changes how models will be made.

        Raises:
            UsageError: `text` names no changes.
            ImportError: this torch has no such model.
        """
        self.changes = parse_all(text)
        reasons = why_not(self.changes)
        if reasons:
            self.refuse(reasons)
            return
        overridden = _set_variables(self.changes)
        own = {change for change in self.changes if not change.name.startswith((DDP, FSDP))}
        if own:
            self._accept(own, overridden)
        if self.of(DDP):
            _install_shim(self)
        if self.of(FSDP):
            from commlens.profiler.fsdp_shim import install

            install(self.of(FSDP), OfFsdp(self))

    def of(self, prefix: str) -> list[Change]:
        """The changes of one kind of model."""
        return [change for change in self.changes if change.name.startswith(prefix)]

    def made(self, overridden: Mapping[str, Any], prefix: str = DDP) -> None:
        """A model was made with the changes."""
        self._accept(set(self.of(prefix)), overridden)

    def hook_failed(self, reason: str) -> None:
        """A model has all changes but the communication hook."""
        hooks = {change for change in self.changes if isinstance(change.value, Hook)}
        self.applied |= set(self.of(DDP)) - hooks
        self.refuse({str(change): reason for change in hooks}, "a part of the fix is not applied")

    def not_made(self, reason: str, prefix: str = DDP) -> None:
        """A model was made as the job asked."""
        self.refuse({str(change): reason for change in self.of(prefix)})

    def described(self) -> dict[str, Any]:
        """The entry of rank.json."""
        rest = [change for change in self.changes if change not in self.applied and str(change) not in self.failed]
        applied = [str(change) for change in self.changes if change in self.applied]
        return {"applied": applied, "failed": {**self.failed, **{str(change): _no_model(change) for change in rest}}}

    def _accept(self, changes: set[Change], overridden: Mapping[str, Any]) -> None:
        if changes <= self.applied:
            return
        self.applied |= changes
        if _is_first():  # the others would say the same
            names = ",".join(str(change) for change in self.changes if change in changes)
            was = " ".join(f"{name}={value}" for name, value in overridden.items())
            live.warn(f"the fix {names} is applied" + (f", in place of {was}" if was else ""))

    def refuse(self, reasons: Mapping[str, str], said: str = "the fix is not applied, the job runs without") -> None:
        """Says why changes are not applied."""
        self.failed.update(reasons)
        why = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
        live.warn(f"{said} ({why})")


class OfFsdp:
    """What became of the changes of FSDP2 models."""

    def __init__(self, fix: Fix) -> None:
        self._fix = fix

    def made(self, overridden: Mapping[str, Any]) -> None:
        """A model has them."""
        self._fix.made(overridden, FSDP)

    def not_made(self, reason: str) -> None:
        """A model runs as the job asked."""
        self._fix.not_made(reason, FSDP)


def _no_model(change: Change) -> str:
    return _NO_MODEL[FSDP if change.name.startswith(FSDP) else DDP]


def apply() -> None:
    """Applies COMMLENS_FIX; called when the job is about to make its process group. Never raises."""
    global _current
    text = os.environ.get(VARIABLE, "").strip()
    if not text or _current is not None:
        return
    _current = fix = Fix()
    try:
        fix.begin(text)
    except CommlensError as error:
        fix.refuse({text: str(error)})
    except Exception as error:  # noqa: BLE001 - the boundary inside the job
        fix.refuse({text: f"{type(error).__name__}: {live.one_line(error)}"})


def described() -> dict[str, Any] | None:
    """The entry of rank.json, None where no fix is asked for."""
    return _current.described() if _current is not None else None


def why_not(changes: Iterable[Change]) -> dict[str, str]:
    """Why changes cannot be applied with the installed torch, by change; {} where they can.

    Raises:
        ImportError: This torch has no DistributedDataParallel.
    """
    found = {str(change): obstacle(change) or _not_in_torch(change) or _too_late(change) for change in changes}
    return {name: reason for name, reason in found.items() if reason is not None}


def _not_in_torch(change: Change) -> str | None:
    from commlens.profiler import ddp_changes, fsdp_shim

    return fsdp_shim.why_not() if change.name.startswith(FSDP) else ddp_changes.missing_argument(change)


def _is_first() -> bool:
    import torch.distributed as dist

    return dist.get_rank() == 0 if dist.is_initialized() else os.environ.get("RANK", "0") == "0"


def _too_late(change: Change) -> str | None:
    import torch.distributed as dist

    late = change.variable is not None and dist.is_initialized()
    return "the process group is there already, and has read its variables" if late else None


def _set_variables(changes: Iterable[Change]) -> dict[str, str]:
    """Sets environment variables; returns what was there otherwise."""
    overridden = {}
    for change in changes:
        if change.variable is None:
            continue
        value = str(int(change.value)) if isinstance(change.value, bool) else str(change.value)
        was = os.environ.get(change.variable, value)
        if was != value:
            overridden[change.variable] = was
        os.environ[change.variable] = value
    return overridden


def _install_shim(fix: Fix) -> None:
    import inspect

    from commlens.profiler.ddp_changes import arguments_of, ddp_class
    from commlens.profiler.ddp_shim import Shim

    ddp = ddp_class()
    known = inspect.signature(ddp.__init__).parameters
    arguments = {name: value for change in fix.changes for name, value in arguments_of(change, known).items()}
    hook = next((change.value for change in fix.changes if isinstance(change.value, Hook)), None)
    Shim(arguments, hook, fix).install(ddp)
