"""What the recorder can see of collectives, by backend, and what start and end mean there."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

# What issued a collective, and who tells of it.
GLOO_NATIVE: Final = "gloo-native"
GLOO_SYNCHRONOUS: Final = "gloo-synchronous"
GLOO_ASYNCHRONOUS: Final = "gloo-asynchronous"
GLOO_BOUND: Final = "gloo-reduce-scatter"
GLOO_MESSAGES: Final = "gloo-messages"
NCCL_PLUGIN: Final = "nccl-plugin"
NCCL_WINDOW: Final = "nccl-window"
NCCL_BARE: Final = "nccl-bare"
OTHER: Final = "other"


@dataclass(frozen=True)
class Sight:
    """One kind of call.

    Attributes:
        calls: one of the words above.
        timing: what its end means, a word of `trace.schema.TIMINGS`.
        blind: neither its start nor its end is known: time budget and overlap of such collectives abstain.
    """

    calls: str
    timing: str

    @property
    def blind(self) -> bool:
        return self.timing == "enqueue_only"


def sights(backends: Iterable[str], native: bool, plugin: bool) -> tuple[Sight, ...]:
    """What is seen of the backends that there are.

    Args:
        backends: as torch names them.
        native: whether the native recorder is compiled for this torch.
        plugin: whether NCCL's plugin is compiled, and NCCL was not told to load another.
    """
    found: list[Sight] = []
    for backend in sorted(set(backends)):
        found += _of(backend, native, plugin)
    return tuple(found)


def _of(backend: str, native: bool, plugin: bool) -> list[Sight]:
    if backend == "gloo":
        calls = (
            [Sight(GLOO_NATIVE, "host")]
            if native
            else [Sight(GLOO_SYNCHRONOUS, "host"), Sight(GLOO_ASYNCHRONOUS, "host"), Sight(GLOO_BOUND, "wait")]
        )
        return [*calls, Sight(GLOO_MESSAGES, "wait")]
    if backend == "nccl":
        return [
            Sight(NCCL_PLUGIN, "device") if plugin else Sight(NCCL_BARE, "enqueue_only"),
            Sight(NCCL_WINDOW, "device"),
        ]
    return [Sight(OTHER, "enqueue_only")]
