"""What DDP's buckets follow from: the model's parameters, and what DDP was asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

MIB: Final = 2**20
DEFAULT_CAP_MB: Final = 25


@dataclass(frozen=True)
class Parameter:
    """One parameter of a model; its place in the list is the order of registration, a shared one stands there once.

    Attributes:
        num_bytes: Size of the parameter, in its own dtype.
        dtype: torch's name, such as "bfloat16".
        device: As torch prints it, such as "cuda:0".
        trainable: DDP leaves frozen parameters out.
        shape: () where that is not known.
        sparse: Its gradient is sparse (`nn.Embedding(sparse=True)`).
    """

    num_bytes: int
    dtype: str = "float32"
    device: str = "cpu"
    trainable: bool = True
    sparse: bool = False
    shape: tuple[int, ...] = ()


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
    def maps_used(self) -> bool:
        """Whether DDP also reduces which parameters were used, behind the last bucket of each backward."""
        return self.find_unused_parameters and not self.static_graph

    @property
    def caps(self) -> tuple[int, ...]:
        """Caps of the first, second, ... bucket, bytes; the last holds for all further ones."""
        if self.bucket_cap_mb_list:
            return tuple(int(cap * MIB) for cap in self.bucket_cap_mb_list)
        if self.bucket_cap_mb is None:
            return self.first_bucket_bytes, DEFAULT_CAP_MB * MIB
        return (int(self.bucket_cap_mb * MIB),)
