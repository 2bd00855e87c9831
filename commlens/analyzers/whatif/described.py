"""What rank.json says of a DDP model: its parameters, how it was set up, and the buckets it made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from commlens.analyzers.whatif.buckets import MIB, Buckets, BucketSettings, Parameter, buckets


@dataclass(frozen=True)
class Described:
    """A DDP model.

    Attributes:
        number: its place among the rank's models.
        parameters: in the order of registration.
        settings: of DDP.
        layout: recorded buckets, None where they cannot be told.
        ready_order: parameters as their gradients became ready, () where that was not recorded.
        view: gradients lie in the buckets, None where that was not recorded.
    """

    number: int
    parameters: tuple[Parameter, ...]
    settings: BucketSettings
    layout: Buckets | None
    ready_order: tuple[int, ...]
    view: bool | None

    @property
    def bucket_bytes(self) -> list[int]:
        """Size of each bucket."""
        return [sum(self.parameters[p].num_bytes for p in bucket) for bucket in self.layout or ()]


def read_ddp(info: Mapping[str, Any], group: str, sent: Sequence[float]) -> Described | None:
    """The DDP model that reduces gradients in a group; None where there is none, or more than one.

    Args:
        info: rank.json of a rank.
        group: name of the group.
        sent: bytes of the collectives of one backward.
    """
    models = [
        (n, m) for n, m in enumerate(info.get("models") or []) if m.get("kind") == "DDP" and m.get("group") == group
    ]
    if len(models) != 1:
        return None
    number, described = models[0]
    parameters, settings = _parameters(described), _settings(described, info)
    layout = _layout(described, parameters, settings, sent)
    order = tuple(int(p) for p in described.get("ready_order") or ())
    complete = layout is not None and sorted(order) == sorted(p for bucket in layout for p in bucket)
    view = (described.get("flags") or {}).get("gradient_as_bucket_view")
    return Described(number, parameters, settings, layout, order if complete else (), view)


def _parameters(described: Mapping[str, Any]) -> tuple[Parameter, ...]:
    return tuple(
        Parameter(
            int(p["num_bytes"]),
            str(p.get("dtype", "float32")),
            str(p.get("device", "cpu")),
            bool(p.get("trainable", True)),
            bool(p.get("sparse", False)),
            tuple(int(n) for n in p.get("shape") or ()),
        )
        for p in described.get("parameters") or ()
    )


def _settings(described: Mapping[str, Any], info: Mapping[str, Any]) -> BucketSettings:
    flags = described.get("flags") or {}
    asked, cap = not flags.get("bucket_bytes_cap_default", True), flags.get("bucket_bytes_cap")
    listed = flags.get("bucket_bytes_cap_list") or ()
    first = flags.get("first_bucket_bytes") or MIB
    last = str((info.get("environment") or {}).get("DDP_SET_LAST_BUCKET_CAP", ""))
    return BucketSettings(
        bucket_cap_mb=cap / MIB if asked and isinstance(cap, int) else None,
        bucket_cap_mb_list=tuple(each / MIB for each in listed if isinstance(each, int)),
        find_unused_parameters=bool(flags.get("find_unused_parameters")),
        static_graph=bool(flags.get("static_graph")),
        last_bucket_cap=last == "1",
        first_bucket_bytes=int(first),
    )


def _layout(
    described: Mapping[str, Any], parameters: Sequence[Parameter], settings: BucketSettings, sent: Sequence[float]
) -> Buckets | None:
    """The recorded buckets: as DDP told, else those it would make if gradients came in reversed order."""
    if described.get("bucket_parameters"):
        return tuple(tuple(int(p) for p in bucket) for bucket in described["bucket_parameters"])
    sizes = [int(size) for size in described.get("bucket_bytes") or ()] or [int(size) for size in sent]
    order = [place for place in range(len(parameters) - 1, -1, -1) if parameters[place].trainable]
    guess = buckets(parameters, order, settings)
    return guess if [sum(parameters[p].num_bytes for p in bucket) for bucket in guess] == sizes else None
