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
from typing import Final

from commlens.analyzers.whatif.hash_order import Key, table_order

MIB: Final = 2**20
DEFAULT_CAP_MB: Final = 25

Buckets = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Parameter:
    """One parameter of a model; its place in the list is the order of registration, a shared one stands there once.

    Attributes:
        num_bytes: Size of the parameter, in its own dtype.
        dtype: torch's name, such as "bfloat16".
        device: As torch prints it, such as "cuda:0".
        trainable: DDP leaves frozen parameters out.
        sparse: Its gradient is sparse (`nn.Embedding(sparse=True)`).
    """

    num_bytes: int
    dtype: str = "float32"
    device: str = "cpu"
    trainable: bool = True
    sparse: bool = False


@dataclass(frozen=True)
class BucketSettings:
    """What DDP's constructor was given, and what the environment changes.

    Attributes:
        bucket_cap_mb: MiB, None where the user gave none. That is not the same as giving 25.
        bucket_cap_mb_list: MiB of the first, second, ... bucket; the last holds for all further ones.
        find_unused_parameters: As given.
        static_graph: As given.
        last_bucket_cap: DDP_SET_LAST_BUCKET_CAP=1, the first bucket's cap goes to the last one.
        first_bucket_bytes: Cap of the first bucket where the user gave none.
    """

    bucket_cap_mb: float | None = None
    bucket_cap_mb_list: tuple[float, ...] = ()
    find_unused_parameters: bool = False
    static_graph: bool = False
    last_bucket_cap: bool = False
    first_bucket_bytes: int = MIB

    @property
    def rebuilds(self) -> bool:
        """Whether DDP lays its buckets out anew in the order in which gradients became ready."""
        return self.static_graph or not self.find_unused_parameters

    @property
    def caps(self) -> tuple[int, ...]:
        """Caps of the first, second, ... bucket, bytes; the last holds for all further ones."""
        if self.bucket_cap_mb_list:
            return tuple(int(cap * MIB) for cap in self.bucket_cap_mb_list)
        if self.bucket_cap_mb is None:
            return self.first_bucket_bytes, DEFAULT_CAP_MB * MIB
        return (int(self.bucket_cap_mb * MIB),)


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
