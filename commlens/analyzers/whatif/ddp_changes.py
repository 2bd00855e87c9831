"""Changes of what DDP does with gradients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from commlens.analyzers.whatif.gradients import Gradients
from commlens.analyzers.whatif.link_changes import FREE_CASTS
from commlens.analyzers.whatif.model import NO_OVERLAP, PERFECT, Altered, Model
from commlens.analyzers.whatif.sent import gather_assumptions
from commlens.trace.changes import Hook

FREE_CODING = "compressing and decompressing is taken to cost nothing: the gain is an upper bound"
NOT_GROWN = "each backward without synchronisation takes as long as one with it, less its communication"


def gradients_of(model: Model) -> Gradients | str:
    """The gradients that DDP reduces, or why what it does with them cannot be changed."""
    if model.gradients is None:
        return "no DDP model reduces gradients in this run"
    return model.gradients.refusal or model.gradients


def settings_of(**new: Callable[[Any], Any]) -> Callable[[Model, Any], Altered]:
    """A change of DDP's arguments."""

    def apply(model: Model, value: Any) -> Altered:
        gradients = gradients_of(model)
        if isinstance(gradients, str):
            return gradients
        settings = replace(gradients.settings, **{name: make(value) for name, make in new.items()})
        return replace(model, gradients=replace(gradients, settings=settings)).touching("transfer")

    return apply


def comm_hook(model: Model, value: Hook) -> Altered:
    """Gradients cast to 16 bits, or compressed by one of torch's hooks; `sent` has the bytes of each."""
    gradients = gradients_of(model)
    if isinstance(gradients, str):
        return gradients
    compresses = value.name in ("powersgd", "quantize")
    size = 2 if value.name in ("bf16", "fp16") else None
    hook = value if compresses else None
    if (size, hook) == (gradients.item_bytes, gradients.hook):
        return model
    changed = replace(model, gradients=replace(gradients, item_bytes=size, hook=hook)).touching("transfer")
    rests = (FREE_CODING, *(gather_assumptions(model) if value.name == "quantize" else ()))
    return changed.assuming(*rests) if compresses else changed.assuming(FREE_CASTS)


def overlap(model: Model, value: str) -> Altered:
    if value == "perfect":
        return replace(model, overlap=PERFECT).touching("transfer")
    gradients = gradients_of(model)
    return gradients if isinstance(gradients, str) else replace(model, overlap=NO_OVERLAP).touching("transfer")


def no_sync_every(model: Model, value: int) -> Altered:
    gradients = gradients_of(model)
    if isinstance(gradients, str):
        return gradients
    now = len(gradients.rounds)
    if now % value and value % now:
        return f"a step has {now} backwards that reduce gradients; {value} does not go with that"
    kept = gradients.rounds[value - 1 :: value] if now % value == 0 else gradients.rounds[-1:]
    altered = replace(model, gradients=replace(gradients, rounds=kept), sync_every=max(1, value // now))
    return altered.touching("transfer", "wait").assuming(NOT_GROWN)
