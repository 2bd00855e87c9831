"""What a rank's description says of its DDP model's buckets."""

from __future__ import annotations

from typing import Any

import pytest

from commlens.analyzers.whatif import described
from commlens.analyzers.whatif.buckets import MIB


@pytest.mark.parametrize(
    ("flags", "caps"),
    [
        ({"bucket_bytes_cap": 25 * MIB, "bucket_bytes_cap_default": True}, (MIB, 25 * MIB)),
        ({"bucket_bytes_cap": 25 * MIB, "bucket_bytes_cap_default": False}, (25 * MIB,)),
        ({"bucket_bytes_cap": 0, "bucket_bytes_cap_default": False}, (0,)),
        (
            {
                "bucket_bytes_cap": 8 * MIB,
                "bucket_bytes_cap_default": False,
                "bucket_bytes_cap_list": [2 * MIB, 8 * MIB],
            },
            (2 * MIB, 8 * MIB),
        ),
        ({}, (MIB, 25 * MIB)),
    ],
)
def test_caps_as_recorded(flags: dict[str, Any], caps: tuple[int, ...]) -> None:
    assert described._settings({"flags": flags}, {}).caps == caps
