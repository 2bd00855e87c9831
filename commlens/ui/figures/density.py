"""Shares of time as a picture: one line a rank, each column of it stacked by what the rank did then."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

_PIXELS: Final = 12  # of a line
_BLANK: Final = 2  # of them between lines


def picture(shares: NDArray[np.float32], colours: Sequence[str | None]) -> str:
    """The picture as a data address.

    Args:
        shares: 0..1, stacked from below in their order, shape (lines, states, columns).
        colours: of each state, "#RRGGBB"; None is left clear.
    """
    from PIL import Image

    lines, states, columns = shares.shape
    heights = np.cumsum(shares, axis=1)
    # The middle of each pixel row, from the top one down.
    levels = 1 - (np.arange(_PIXELS - _BLANK) + 0.5) / (_PIXELS - _BLANK)
    cells = np.zeros((lines, _PIXELS, columns), np.uint8)
    for number, level in enumerate(levels):
        state = (heights <= level).sum(axis=1)  # how many states end below this row
        cells[:, number + _BLANK // 2] = np.where(state < states, state + 1, 0)
    image = Image.fromarray(cells.reshape(lines * _PIXELS, columns), "P")
    image.putpalette([0, 0, 0, *(value for colour in colours for value in bytes.fromhex((colour or "#000000")[1:]))])
    clear = bytes([0, *(0 if colour is None else 255 for colour in colours)])
    written = io.BytesIO()
    image.save(written, "PNG", transparency=clear, compress_level=1)
    return "data:image/png;base64," + base64.b64encode(written.getvalue()).decode()
