"""Which gradients DDP sends together: its bucket assignment, exactly.

From torch's sources (2.11 and 2.13 say the same): torch/nn/parallel/distributed.py
(`_BucketCapacityConfig`, `_ddp_init_helper`) for the limits and the first layout,
torch/csrc/distributed/c10d/reducer.cpp (`compute_bucket_assignment_by_size`,
`rebuild_buckets`, `delay_all_reduce`) for the rest. Compared with DDP's own log in
tests/jobs/test_bucket_layouts.py.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from commlens.analyzers.whatif.bucket_settings import DEFAULT_CAP_MB, MIB, BucketSettings, Parameter
from commlens.analyzers.whatif.hash_order import Key, table_order

__all__ = ["DEFAULT_CAP_MB", "MIB", "BucketSettings", "Buckets", "Parameter", "buckets", "first_buckets"]

Buckets = tuple[tuple[int, ...], ...]


@dataclass
class _Filling:
    """The open bucket of one dtype and device."""

    members: list[int] = field(default_factory=list)
    num_bytes: int = 0
    nth: int = 0


def buckets(parameters: Sequence[Parameter], ready_order: Sequence[int], settings: BucketSettings) -> Buckets:
    """The buckets in which DDP sends gradients from its third step on (static graph: its fourth).

    Args:
        parameters: Those of the model in order of registration, frozen ones included.
        ready_order: Indices of trainable parameters as their gradients became ready on rank 0, each
            once. Those that are missing had none: with a static graph DDP puts them last.
        settings: Of DDP.

    Returns:
        Indices into `parameters`, for each bucket in the order of sending.

    Raises:
        ValueError: `ready_order` names a parameter twice, or one that is not trainable.
    """
    _check(parameters, ready_order)
    if not settings.rebuilds:
        return first_buckets(parameters, settings)
    ready = dict.fromkeys([*ready_order, *_trainable(parameters)])
    order = list(ready)
    if not settings.last_bucket_cap:
        return tuple(_assigned(parameters, order, settings.caps))
    return tuple(reversed(_assigned(parameters, order[::-1], settings.caps)))


def first_buckets(parameters: Sequence[Parameter], settings: BucketSettings) -> Buckets:
    """The buckets before DDP rebuilds them: all in one where it will, else by order of registration, reversed."""
    caps = (sys.maxsize,) if settings.rebuilds and not settings.bucket_cap_mb_list else settings.caps
    return tuple(sorted(_assigned(parameters, _trainable(parameters), caps), key=min, reverse=True))


def _trainable(parameters: Sequence[Parameter]) -> list[int]:
    return [index for index, parameter in enumerate(parameters) if parameter.trainable]


def _check(parameters: Sequence[Parameter], ready_order: Sequence[int]) -> None:
    if len(set(ready_order)) < len(ready_order):
        raise ValueError("ready_order names a parameter twice; give each at its last use")
    if strangers := set(ready_order) - set(_trainable(parameters)):
        raise ValueError(f"ready_order names {min(strangers)}, which is no trainable parameter of the model")


def _assigned(parameters: Sequence[Parameter], order: Iterable[int], caps: Sequence[int]) -> list[tuple[int, ...]]:
    """Buckets as they fill up; what is left over at the end, one for each dtype and device, comes last.

    A bucket closes when it has reached its cap, so it is larger than that by up to a parameter.
    """
    closed: list[tuple[int, ...]] = []
    filling: dict[Key, _Filling] = {}
    for index in order:
        parameter = parameters[index]
        if parameter.sparse:
            closed.append((index,))
            continue
        bucket = filling.setdefault((parameter.dtype, parameter.device), _Filling())
        bucket.members.append(index)
        bucket.num_bytes += parameter.num_bytes
        if bucket.num_bytes >= caps[min(bucket.nth, len(caps) - 1)]:
            closed.append(tuple(bucket.members))
            bucket.members, bucket.num_bytes, bucket.nth = [], 0, bucket.nth + 1
    return closed + [tuple(filling[key].members) for key in table_order(filling) if filling[key].members]
