"""What changes are changed to: reading values from text and writing them again."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass

_NUMBER = re.compile(r"\d+\.?\d*(?:[eE][+-]?\d+)?|\.\d+")
_DTYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
_FLAGS = {"1": True, "true": True, "0": False, "false": False}


@dataclass(frozen=True)
class Hook:
    """A communication hook of DDP; `rank` is that of PowerSGD's approximation."""

    name: str
    rank: int | None = None


@dataclass(frozen=True)
class Scale:
    """A quantity times `number`, or, where not `relative`, `number` of its unit."""

    number: float
    relative: bool


Value = bool | int | float | str | tuple[float, ...] | Hook | Scale


def above_zero(text: str) -> float:
    """A finite number above 0.

    Raises:
        ValueError: It is none; the same for each function here.
    """
    if not _NUMBER.fullmatch(text) or not 0 < float(text) < math.inf:
        raise ValueError
    return float(text)


def sizes(text: str) -> tuple[float, ...]:
    """Numbers above 0, joined by "+"."""
    return tuple(above_zero(part.strip()) for part in text.split("+"))


def flag(text: str) -> bool:
    """0 or 1, false or true."""
    if text.lower() not in _FLAGS:
        raise ValueError
    return _FLAGS[text.lower()]


def yes(text: str) -> bool:
    """1 or true."""
    if not flag(text):
        raise ValueError
    return True


def count(text: str) -> int:
    """A whole number above 0."""
    if not count_or_none(text):
        raise ValueError
    return int(text)


def count_or_none(text: str) -> int:
    """A whole number, 0 among them."""
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise ValueError
    return int(text)


def hook(text: str) -> Hook:
    """none, bf16, fp16, quantize, powersgd (of rank 1) or powersgd:rank=R."""
    name, colon, option = text.partition(":")
    if name == "powersgd":
        return Hook(name, count(option.removeprefix("rank=")) if colon else 1)
    if name not in ("none", "bf16", "fp16", "quantize") or colon:
        raise ValueError
    return Hook(name)


def dtype(text: str) -> str:
    """torch's name of a floating type, or its short form."""
    name = _DTYPES.get(text, text)
    if name not in _DTYPES.values():
        raise ValueError
    return name


def word(text: str) -> str:
    """Anything a variable may hold, the empty word too."""
    if "\0" in text:
        raise ValueError
    return text


def one_of(*words: str) -> Callable[[str], str]:
    """One of these."""

    def read(text: str) -> str:
        if text not in words:
            raise ValueError
        return text

    return read


def scaled(unit: str) -> Callable[[str], Scale]:
    """ "x2" is a factor, "12.5" a number of `unit`, which may be written behind it."""

    def read(text: str) -> Scale:
        if text.startswith("x"):
            return Scale(above_zero(text[1:]), True)
        return Scale(above_zero(text.removesuffix(unit).strip()), False)

    return read


def text_of(value: Value) -> str:
    """The text a value is read from."""
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, Hook):
        return value.name if value.rank is None else f"{value.name}:rank={value.rank}"
    if isinstance(value, Scale):
        return f"{'x' if value.relative else ''}{value.number:.12g}"
    if isinstance(value, tuple):
        return "+".join(text_of(each) for each in value)
    return f"{value:.12g}" if isinstance(value, float) else str(value)
