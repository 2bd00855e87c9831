"""How large the messages are: a histogram by operation, in powers of two."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from commlens.analyzers.collective_line import CollectiveLine


@dataclass(frozen=True)
class SizeBucket:
    """Messages of one operation from `from_bytes` up to, but not with, `to_bytes`.

    Attributes:
        op: torch's spelling.
        from_bytes: 0, or a power of two.
        to_bytes: twice that (1 after 0).
        count: collectives (of one rank each) in the analysed steps.
        bytes: their message sizes together.
        exposed_ms_per_step: exposed time of all of them.
    """

    op: str
    from_bytes: int
    to_bytes: int
    count: int
    bytes: int
    exposed_ms_per_step: float


def size_histogram(lines: Sequence[CollectiveLine]) -> tuple[SizeBucket, ...]:
    """The histogram of a run's collectives, by operation and size; sizes that are not known are left out."""
    buckets: dict[tuple[str, int], list[CollectiveLine]] = {}
    for line in lines:
        if line.bytes is not None:
            buckets.setdefault((line.op, line.bytes.bit_length()), []).append(line)
    return tuple(_bucket(op, bits, own) for (op, bits), own in sorted(buckets.items()))


def _bucket(op: str, bits: int, lines: Sequence[CollectiveLine]) -> SizeBucket:
    return SizeBucket(
        op=op,
        from_bytes=2 ** (bits - 1) if bits else 0,
        to_bytes=2**bits,
        count=sum(line.count for line in lines),
        bytes=sum(line.count * (line.bytes or 0) for line in lines),
        exposed_ms_per_step=round(float(np.sum([line.exposed_ms_per_step or 0 for line in lines])), 6),
    )
