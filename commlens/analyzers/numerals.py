"""Numbers in titles and reasons, as people write them."""

from __future__ import annotations


def counted(count: float, word: str) -> str:
    """A count of things: "1 rank", "2,048 ranks", "1.5 steps"."""
    text = f"{count:,}" if isinstance(count, int) else plain(count)
    return f"{text} {word}{'s' * (text != '1')}"


def plain(value: float, digits: int = 3) -> str:
    """Some significant digits, at least all before the point, and never an exponent: "0.0123", "1.5", "1690"."""
    rounded = float(f"{value:.{digits}g}")
    if abs(rounded) >= 10 ** (digits - 1):
        return f"{value:.0f}"
    text = f"{rounded:.{digits}g}"
    return text if "e" not in text else f"{rounded:.20f}".rstrip("0").rstrip(".")
