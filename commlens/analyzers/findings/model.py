"""What rank.json says of the one model that a rank trains."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from commlens.analyzers.findings.context import Context

HALF = {"bfloat16": "bf16", "float16": "fp16"}  # to the words of `ddp.comm_hook`


@dataclass(frozen=True)
class Model:
    """A model.

    Attributes:
        kind: "DDP", "FSDP2", "FSDP" or "module".
        group: torch's name of the group in which DDP reduces gradients, None of others.
        flags: DDP's settings.
        buckets: bytes of each of DDP's buckets, in the order of sending.
        unused: bytes of parameters that DDP found without gradient, each time that was looked.
        autocast: the data type that autocast computes its forward in, None where none was seen.
        sizes: bytes of the gradient of each trainable parameter.
        elements: elements of each of them.
        dtypes: torch's names of their data types.
        ready: places among them in the order in which gradients became ready, () where that is not known.
    """

    kind: str
    group: str | None
    flags: Mapping[str, Any]
    buckets: tuple[int, ...]
    unused: tuple[int, ...]
    autocast: str | None
    sizes: tuple[int, ...]
    elements: tuple[int, ...]
    dtypes: tuple[str, ...]
    ready: tuple[int, ...]


def alike(context: Context, *kinds: str) -> Model | None:
    """The model of the first rank, where all ranks have the same one, of one of these kinds."""
    every = context.models
    if not every or every[0].kind not in kinds:
        return None
    same = all((each.kind, each.sizes, each.flags) == (every[0].kind, every[0].sizes, every[0].flags) for each in every)
    return every[0] if same else None


def read_models(infos: Iterable[Mapping[str, Any]]) -> tuple[Model, ...]:
    """The model of each rank whose rank.json this is; () where some rank has none, or several.

    With several it is not known whose the collectives are. One whose gradients' sizes are not written down counts
    for none.
    """
    found = []
    for info in infos:
        described = [_read(each) for each in info.get("models") or ()]
        trained = [each for each in described if each.sizes]
        if len(trained) != 1:
            return ()
        found.append(trained[0])
    return tuple(found)


def _read(described: Mapping[str, Any]) -> Model:
    every = described.get("parameters") or ()
    numbers = [number for number, each in enumerate(every) if each.get("trainable", True)]
    trained = [every[number] for number in numbers]
    place = {number: at for at, number in enumerate(numbers)}
    order = tuple(place[int(number)] for number in described.get("ready_order") or () if int(number) in place)
    sizes = [int(each["num_bytes"]) for each in trained if "num_bytes" in each]
    group = described.get("group")
    return Model(
        kind=str(described.get("kind", "")),
        group=None if group is None else str(group),
        flags=described.get("flags") or {},
        buckets=tuple(int(size) for size in described.get("bucket_bytes") or ()),
        unused=tuple(int(size) for size in described.get("unused_bytes") or ()),
        autocast=described.get("autocast"),
        sizes=tuple(sizes) if len(sizes) == len(trained) else (),
        elements=tuple(prod(each.get("shape") or ()) for each in trained),
        dtypes=tuple(str(each.get("dtype", "")) for each in trained),
        ready=order if len(order) == len(trained) else (),
    )
