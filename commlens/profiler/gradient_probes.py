"""Probes that tell when the gradients of one model became ready in one backward.

DDP notes it by itself for each parameter, as nanoseconds since its own start of the backward. One hook on
one parameter ties that to our clock: nothing else is added to the backward, and the other steps cost nothing.

Other models are given a hook on the node that accumulates each parameter's gradient. It goes away with the
graph. `register_post_accumulate_grad_hook` would do, but torch goes on calling into Python for each
parameter after the hook was removed (a quarter of a microsecond each, in all later steps).
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from commlens.profiler import models
from commlens.profiler.clock import now
from commlens.trace.schema import MISSING

Integers = NDArray[np.int64]
_SHARDED = "gradients of sharded parameters ({kind}) become ready in pieces that no hook sees"


class Probe(Protocol):
    """In one model for one backward."""

    def insert(self) -> None:
        """Before the backward."""

    def remove(self) -> None:
        """After it; a second call does nothing."""

    def calls(self) -> int:
        """How often torch called into Python for it."""

    def seen(self) -> tuple[Integers, Integers]:
        """Places of the parameters that had gradients, and when each was ready, ns of `clock.now`."""


def probe_of(model: Any) -> Probe | str:
    """The probe that fits the model, or why there is none."""
    kind = models.kind(model)
    if kind == "DDP":
        return _ddp_probe(model)
    trainable = {place: each for place, (_, each) in enumerate(models.parameters(model)) if each.requires_grad}
    if kind != "module" or any(_is_sharded(parameter) for parameter in trainable.values()):
        return _SHARDED.format(kind="DTensor" if kind == "module" else kind)
    return NodeProbe(trainable)


def is_compiled() -> bool:
    """Whether backward runs compiled: hooks would have it compiled anew."""
    home = sys.modules.get("torch._dynamo.compiled_autograd")
    return bool(getattr(home, "compiled_autograd_enabled", False))


def _is_sharded(parameter: Any) -> bool:
    import torch

    return type(parameter) not in (torch.nn.Parameter, torch.Tensor)


def _ddp_probe(model: Any) -> Probe | str:
    wrapper: Any = models.find_ddp(model)
    reducer: Any = getattr(wrapper, "reducer", None)
    if not hasattr(reducer, "get_backward_stats"):
        return "this torch's DDP does not tell when gradients are ready"
    places = models.ddp_places(model, wrapper)
    trainable = [each for each in wrapper._module_parameters if each.requires_grad]
    if not places or len(places) != len(reducer.get_backward_stats()):
        return "DDP's parameters are not those of the model"
    return ReducerProbe(places, trainable, reducer.get_backward_stats)


class NodeProbe:
    """A hook on each parameter's AccumulateGrad node.

    Args:
        trainable: Parameters by place.
    """

    def __init__(self, trainable: dict[int, Any]) -> None:
        self._trainable = trainable
        self._ready = array("q", [MISSING]) * len(trainable)
        self._handles: list[Any] = []

    def insert(self) -> None:
        from torch.autograd.graph import get_gradient_edge

        for number, parameter in enumerate(self._trainable.values()):
            self._handles.append(get_gradient_edge(parameter).node.register_hook(_noting(self._ready, number)))

    def remove(self) -> None:
        handles, self._handles = self._handles, []
        for handle in handles:
            handle.remove()

    def calls(self) -> int:
        return len(self._ready) - self._ready.count(MISSING)

    def seen(self) -> tuple[Integers, Integers]:
        ready = np.array(self._ready, np.int64)
        return np.array(list(self._trainable), np.int64)[ready >= 0], ready[ready >= 0]


class ReducerProbe:
    """DDP's own notes, tied to our clock at the parameter that was ready last in the backward before.

    Backwards under `no_sync` are not noted: DDP leaves its notes as they were.

    Args:
        places: Of DDP's parameters, in its own order.
        parameters: DDP's parameters in the same order.
        notes: Tells for each how long after DDP's start of the backward it was ready, ns.
    """

    def __init__(self, places: list[int], parameters: list[Any], notes: Callable[[], list[int]]) -> None:
        self._places = np.array(places, np.int64)
        self._notes = notes
        self._before = _as_integers(notes())
        self._number = int(self._before.argmax())
        self._anchor = parameters[self._number]
        self._ready = array("q", [MISSING])
        self._handle: Any = None

    def insert(self) -> None:
        self._handle = self._anchor.register_post_accumulate_grad_hook(_noting(self._ready, 0))

    def remove(self) -> None:
        handle, self._handle = self._handle, None
        if handle is not None:
            handle.remove()

    def calls(self) -> int:
        return int(self._ready[0] != MISSING)

    def seen(self) -> tuple[Integers, Integers]:
        notes = _as_integers(self._notes())
        if self._ready[0] == MISSING or notes[self._number] == self._before[self._number]:
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        return self._places, self._ready[0] + notes - notes[self._number]


def _as_integers(values: list[int]) -> Integers:
    return np.array(values, np.int64)


def _noting(ready: array[int], number: int) -> Callable[..., None]:
    def note(*_: Any) -> None:
        ready[number] = now()

    return note
