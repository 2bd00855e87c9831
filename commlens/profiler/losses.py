"""What backward started from: the losses that `commlens verify` sets beside each other when a fix loses something.

Kept as tensors and read at the end, so that no step waits for a device. Only where COMMLENS_LOSSES asks for it.
"""

from __future__ import annotations

import math
import os
from collections import deque
from typing import Any, Final

VARIABLE: Final = "COMMLENS_LOSSES"
KEPT: Final = 10  # at each end


class Losses:
    """The first and the last losses of one rank."""

    def __init__(self) -> None:
        self._first: list[Any] = []
        self._last: deque[Any] = deque(maxlen=KEPT)

    def see(self, roots: Any) -> None:
        """Before a backward from `roots`; a loss is one number."""
        import torch

        # A tensor of another type, such as a DTensor, might need a collective to tell its value.
        if not isinstance(roots, tuple) or len(roots) != 1 or type(roots[0]) is not torch.Tensor:
            return
        if roots[0].numel() != 1 or not roots[0].is_floating_point():
            return
        loss = roots[0].detach().clone()  # where graphs are replayed its memory is used again
        if len(self._first) < KEPT:
            self._first.append(loss)
        self._last.append(loss)

    def described(self) -> dict[str, list[float | None]]:
        """Waits for the device, so only at the end of the job. None for what is no finite number."""
        return {"first": [_value(loss) for loss in self._first], "last": [_value(loss) for loss in self._last]}


def _value(loss: Any) -> float | None:
    try:
        value = float(loss)
    except RuntimeError:  # of torch: a device that failed must not cost the recording's end
        return None
    return value if math.isfinite(value) else None


def asked() -> Losses | None:
    """None unless losses are to be kept."""
    return Losses() if os.environ.get(VARIABLE) == "1" else None
