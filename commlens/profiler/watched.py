"""The job's models: found in its first steps, described, and described anew when DDP has rebuilt its buckets."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any, Final

from commlens.profiler import models, phases

if TYPE_CHECKING:
    from collections.abc import Callable

    from commlens.profiler.gradients import Gradients

# Looking takes time, and these steps are never analysed.
LOOK_UNTIL_BACKWARD: Final = 4
LOOK_UNTIL_STEP: Final = 2
# Steps before which DDP has written down what it found, as it does in its first ten and in some later ones.
LOOK_FOR_UNUSED: Final = frozenset([*range(3, 11), *range(101, 1002, 100)])


class WatchedModels:
    """What rank.json says of the models, kept at each backward.

    Args:
        book: the book of phases, which is told how DDP's buckets lie.
        gradients: told which models there are.
        on_change: told when there is something new for rank.json.

    Attributes:
        described: the entry of rank.json, one a model.
        forward: "ok", or why no forward can be seen.
    """

    def __init__(self, book: phases.Phases, gradients: Gradients, on_change: Callable[[], None]) -> None:
        self.described: list[dict[str, Any]] = []
        self.forward = "no backward was seen"
        self._book = book
        self._gradients = gradients
        self._on_change = on_change
        self._found: list[weakref.ref[Any]] = []
        self._awaiting_rebuild = False
        self._looked = -1
        self._backwards = 0

    def after_backward(self) -> None:
        """Looks for the models in the job's first steps."""
        self._gradients.after_backward()
        self._backwards += 1
        if self._backwards > LOOK_UNTIL_BACKWARD or self._book.step >= LOOK_UNTIL_STEP:
            return
        found = models.outermost()
        for module in found:
            phases.watch_forward(module)
        self.forward = "ok" if found else "no module with trainable parameters was found"
        self._found = [weakref.ref(module) for module in found]
        self._describe(found)

    def before_backward(self) -> None:
        """Describes the models anew when DDP has rebuilt its buckets."""
        step = self._book.step
        if self._awaiting_rebuild:
            found = [module for reference in self._found if (module := reference()) is not None]
            if not any(models.awaits_rebuild(module) for module in found):
                self._describe(found)
        if step in LOOK_FOR_UNUSED and step != self._looked:
            self._looked = step
            self._look_for_unused()
        self._gradients.before_backward(step)

    def _look_for_unused(self) -> None:
        """Notes in each model what DDP's search for unused parameters found in the steps before."""
        found = [reference() for reference in self._found]
        unused = [models.unused_bytes(module) if module is not None else None for module in found]
        if len(found) != len(self.described) or unused == [None] * len(found):
            return
        self.described = [  # new ones: the flush thread may be writing the old
            model if number is None else model | {"unused_bytes": [*model.get("unused_bytes", ()), number]}
            for model, number in zip(self.described, unused, strict=True)
        ]
        self._on_change()

    def _describe(self, found: list[Any]) -> None:
        autocast = self._book.autocast
        self.described = [models.describe(module) | {"autocast": autocast.get(module)} for module in found]
        self._awaiting_rebuild = any(models.awaits_rebuild(module) for module in found)
        layouts: dict[str, list[list[int]]] = {}
        for model in self.described:
            if model["bucket_bytes"]:
                layouts.setdefault(model["group"], []).append(model["bucket_bytes"])
        self._book.buckets.lay_out(layouts)
        self._gradients.watch(found)
        self._on_change()
