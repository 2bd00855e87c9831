"""Exactly what to write for a change, with the value that was simulated."""

from __future__ import annotations

from collections.abc import Sequence
from string import ascii_lowercase


def written(settings: Sequence[str], usual: str) -> str:
    """The line of code, in which the value is that of the last setting.

    Args:
        settings: as `whatif` takes them, "fsdp.unit_merge=4"; of several the last is the technique's own.
        usual: what to write where nothing was simulated, or the value does not stand in the code.
    """
    name, _, value = settings[-1].partition("=") if settings else ("", "", "")
    if name == "ddp.bucket_cap_mb":
        return f"DistributedDataParallel(model, bucket_cap_mb={value})"
    if name == "ddp.bucket_cap_mb_list":
        return f"DistributedDataParallel(model, bucket_cap_mb_list=[{value.replace('+', ', ')}])"
    if name == "fsdp.unit_merge":
        return f"fully_shard([{', '.join(f'block_{letter}' for letter in ascii_lowercase[: int(value)])}])"
    return usual
