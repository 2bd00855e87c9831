"""Parameter tables of well-known models, by formula from their architectures' published shapes.

Each row is one tensor in the order of registration: its shape, and how much work its layer is for one sample.
Work is forward FLOPs, 2 per multiply-add; normalisation counts 10 per element it reads (memory-bound, a guess). Rows
without elements are work that no tensor of their own belongs to. Gradients become ready from the last row to the first.

Sources: He et al. 2015 (ResNet, strides as torchvision's v1.5), Simonyan & Zisserman 2014 (VGG-16), Devlin et al. 2018
(BERT), Radford et al. 2019 (GPT-2; its output layer shares the first tensor, which is ready last).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_NORM = 10.0


class Row(NamedTuple):
    """One tensor's shape and its work, or work without a tensor: a shape of nothing."""

    shape: tuple[int, ...]
    work: float

    @property
    def elements(self) -> int:
        return math.prod(self.shape) if self.shape else 0


@dataclass(frozen=True)
class Table:
    """A model.

    Attributes:
        name: as people call it.
        rows: in the order of registration.
    """

    name: str
    rows: tuple[Row, ...]

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """Of each tensor, in the order of registration."""
        return [row.shape for row in self.rows if row.shape]

    @property
    def elements(self) -> int:
        """Of all tensors."""
        return sum(row.elements for row in self.rows)

    @property
    def forward_flop(self) -> float:
        """Of one sample."""
        return sum(row.work for row in self.rows)

    @property
    def ready(self) -> NDArray[np.float64]:
        """When each gradient is ready, 0..1 of the backward, in the order of registration."""
        done = np.cumsum([row.work for row in reversed(self.rows)])[::-1] / self.forward_flop
        return np.asarray(done[[bool(row.shape) for row in self.rows]])


def _conv(out: int, into: int, kernel: int, side: int) -> Row:
    """A convolution with an output of `side` x `side`."""
    return Row((out, into, kernel, kernel), 2.0 * out * into * kernel**2 * side**2)


def _norm(channels: int, positions: int) -> list[Row]:
    return [Row((channels,), _NORM / 2 * channels * positions)] * 2


def _linear(out: int, into: int, positions: int = 1) -> list[Row]:
    return [Row((out, into), 2.0 * out * into * positions), Row((out,), float(out * positions))]


def resnet(depth: int) -> Table:
    """ResNet-50 (161 tensors, 25,557,032 parameters) or ResNet-101 (314 and 44,549,160)."""
    blocks = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}[depth]
    rows, into = [_conv(64, 3, 7, 112), *_norm(64, 112**2)], 64
    for stage, count in enumerate(blocks):
        width, side = 64 * 2**stage, 56 // 2**stage
        for block in range(count):
            before = side * 2 if stage and not block else side
            rows += [_conv(width, into, 1, before), *_norm(width, before**2)]
            rows += [_conv(width, width, 3, side), *_norm(width, side**2)]
            rows += [_conv(4 * width, width, 1, side), *_norm(4 * width, side**2)]
            if not block:
                rows += [_conv(4 * width, into, 1, side), *_norm(4 * width, side**2)]
            into = 4 * width
    return Table(f"resnet{depth}", (*rows, *_linear(1000, into)))


def vgg16() -> Table:
    """VGG-16 without normalisation: 32 tensors, 138,357,544 parameters."""
    rows: list[Row] = []
    into = 3
    for width, count, side in ((64, 2, 224), (128, 2, 112), (256, 3, 56), (512, 3, 28), (512, 3, 14)):
        for _ in range(count):
            rows += [_conv(width, into, 3, side), Row((width,), float(width * side**2))]
            into = width
    return Table("vgg16", (*rows, *_linear(4096, 512 * 7**2), *_linear(4096, 4096), *_linear(1000, 4096)))


def bert(layers: int = 12, width: int = 768, sequence: int = 128) -> Table:
    """BERT; base has 199 tensors and 109,482,240 parameters."""
    rows = [Row((30522, width), 0.0), Row((512, width), 0.0), Row((2, width), 0.0), *_norm(width, sequence)]
    for _ in range(layers):
        for _ in "query", "key", "value":
            rows += _linear(width, width, sequence)
        rows += [Row((), 4.0 * sequence**2 * width), *_linear(width, width, sequence), *_norm(width, sequence)]
        rows += [*_linear(4 * width, width, sequence), *_linear(width, 4 * width, sequence), *_norm(width, sequence)]
    return Table(f"bert-{layers}x{width}", (*rows, *_linear(width, width)))


def gpt2(layers: int = 12, width: int = 768, sequence: int = 1024) -> Table:
    """GPT-2; small has 148 tensors and 124,439,808 parameters."""
    rows = [Row((50257, width), 0.0), Row((1024, width), 0.0)]
    for _ in range(layers):
        rows += [*_norm(width, sequence), *_linear(3 * width, width, sequence), Row((), 4.0 * sequence**2 * width)]
        rows += [*_linear(width, width, sequence), *_norm(width, sequence)]
        rows += [*_linear(4 * width, width, sequence), *_linear(width, 4 * width, sequence)]
    rows += [*_norm(width, sequence), Row((), 2.0 * 50257 * width * sequence)]
    return Table(f"gpt2-{layers}x{width}", tuple(rows))
