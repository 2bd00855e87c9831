"""Changes how the job's DistributedDataParallel is made, without a change of the job's code.

Whatever goes wrong, the model is made as the job asked for it.
"""

from __future__ import annotations

import functools
import inspect
import weakref
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from commlens.profiler import live
from commlens.profiler.ddp_changes import hook_obstacle, make_hook

if TYPE_CHECKING:
    from commlens.trace.changes import Hook


class Outcome(Protocol):
    """Who is told what became of the changes."""

    def made(self, overridden: Mapping[str, Any]) -> None:
        """A model has them, in place of these arguments of the job's own."""

    def hook_failed(self, reason: str) -> None:
        """A model has all but the communication hook."""

    def not_made(self, reason: str) -> None:
        """A model was made as the job asked."""


class Shim:
    """Round the constructor of DistributedDataParallel.

    Args:
        arguments: to put in the place of the job's.
        hook: to register in the place of the job's, None to leave hooks alone.
    """

    def __init__(self, arguments: Mapping[str, Any], hook: Hook | None, outcome: Outcome) -> None:
        self._arguments = arguments
        self._hook = hook
        self._outcome = outcome
        self._hooked: weakref.WeakSet[Any] = weakref.WeakSet()
        self._on = True

    def install(self, ddp: Any) -> None:
        """Puts it round the class's methods, for subclasses too."""
        self._make, self._register = ddp.__init__, getattr(ddp, "register_comm_hook", None)
        self._signature = inspect.signature(ddp.__init__)

        @functools.wraps(ddp.__init__)
        def make(model: Any, *args: Any, **kwargs: Any) -> None:
            self._construct(model, args, kwargs)

        ddp.__init__ = make
        if self._hook is not None:
            for name in ("register_comm_hook", "_register_builtin_comm_hook"):
                if hasattr(ddp, name):
                    setattr(ddp, name, self._unless_hooked(getattr(ddp, name)))

    def _construct(self, model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        bound = self._bind(model, args, kwargs) if self._on else None
        overridden = self._override(bound) if bound is not None else {}
        if bound is None or not self._made(bound):
            self._make(model, *args, **kwargs)
        elif self._add_hook(model):
            self._outcome.made(overridden)

    def _bind(self, model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> inspect.BoundArguments | None:
        """The job's arguments by name; None where this model cannot be changed."""
        try:
            bound = self._signature.bind(model, *args, **kwargs)
        except TypeError:  # no arguments of a model: torch will say so
            return None
        reason = hook_obstacle(self._hook, bound.arguments)
        if reason is not None:
            self._give_up(reason)
        return bound if reason is None else None

    def _override(self, bound: inspect.BoundArguments) -> dict[str, Any]:
        """Puts the changes into `bound`; returns what the job had said otherwise."""
        said = {name: bound.arguments.get(name) for name in self._arguments}
        bound.arguments.update(self._arguments)
        return {name: was for name, was in said.items() if was is not None and was != self._arguments[name]}

    def _made(self, bound: inspect.BoundArguments) -> bool:
        try:
            self._make(*bound.args, **bound.kwargs)
        except Exception as error:  # noqa: BLE001 - the boundary inside the job
            self._give_up(f"{type(error).__name__}: {live.one_line(error)}")
            return False  # the next try replaces the reducer, whose end takes its hooks off the parameters
        return True

    def _give_up(self, reason: str) -> None:
        self._on = False  # all models or none, as far as that can still be had
        self._outcome.not_made(reason)

    def _add_hook(self, model: Any) -> bool:
        if self._hook is None:
            return True
        try:
            if self._hook.name != "none":
                assert self._register is not None
                self._register(model, *make_hook(self._hook, model))
        except Exception as error:  # noqa: BLE001 - the boundary inside the job
            self._outcome.hook_failed(f"{type(error).__name__}: {live.one_line(error)}")
            return False
        self._hooked.add(model)
        return True

    def _unless_hooked(self, original: Any) -> Any:
        """DDP takes one hook only: the job's own would be an error."""

        @functools.wraps(original)
        def register(model: Any, *args: Any, **kwargs: Any) -> Any:
            if model not in self._hooked:
                return original(model, *args, **kwargs)
            live.warn("the job's own communication hook is left out: the fix says which one to use")
            return None

        return register
