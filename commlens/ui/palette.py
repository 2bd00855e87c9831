"""Colours by meaning: the same thing has the same colour on every page.

The colours are those of Okabe and Ito (2008), which people with any colour vision can tell apart; grey is added. They
stand out on white and on black alike. Where two of them touch, a pattern tells them apart without colour.
"""

from __future__ import annotations

from typing import Final

BLUE, SKY, GREEN, YELLOW = "#0072B2", "#56B4E9", "#009E73", "#F0E442"
ORANGE, VERMILION, PURPLE, GREY = "#E69F00", "#D55E00", "#CC79A7", "#8C939B"

COMPUTE, WAIT, TRANSFER, UNSPLIT, EXPOSED = "compute", "exposed_wait", "exposed_transfer", "exposed_unsplit", "exposed"
OTHER, HIDDEN, CRITICAL_PATH, CAUSED = "other", "hidden", "critical_path", "caused"
IDLE, GAP, USED, PEAK, FIT = "idle", "gap", "used", "peak", "fit"

COLOURS: Final[dict[str, str]] = {
    COMPUTE: GREEN,
    WAIT: VERMILION,
    TRANSFER: ORANGE,
    UNSPLIT: PURPLE,
    EXPOSED: ORANGE,
    OTHER: GREY,
    HIDDEN: SKY,
    CRITICAL_PATH: BLUE,
    CAUSED: BLUE,
    IDLE: "#C3C8CE",
    GAP: "#C3C8CE",
    USED: BLUE,
    PEAK: GREY,
    FIT: GREY,
}

# The words of the text report.
NAMES: Final[dict[str, str]] = {
    COMPUTE: "compute",
    WAIT: "exposed wait",
    TRANSFER: "exposed transfer",
    UNSPLIT: "exposed, not split",
    EXPOSED: "exposed communication",
    OTHER: "other",
    HIDDEN: "hidden",
    CRITICAL_PATH: "critical path",
    CAUSED: "caused",
    IDLE: "idle: nothing launched",
    GAP: "idle: launched, not begun",
    USED: "used",
    PEAK: "peak",
    FIT: "fitted cost",
}

# Plotly's patterns of bars; what is not named is plain.
PATTERNS: Final[dict[str, str]] = {WAIT: "/", UNSPLIT: "x", HIDDEN: ".", IDLE: "-", GAP: "\\"}

# For things that have no meaning but to be different: groups, operations.
SERIES: Final[tuple[str, ...]] = (BLUE, ORANGE, GREEN, PURPLE, VERMILION, SKY, GREY, YELLOW)
SYMBOLS: Final[tuple[str, ...]] = ("circle", "square", "diamond", "cross", "x", "pentagon", "star", "hexagon")

TEXT: Final = "#767B84"  # readable on white and on black; the pages' style sheet puts its own in its place
GRID: Final = "rgba(128, 128, 128, 0.22)"
LINE: Final = "rgba(128, 128, 128, 0.75)"
CLEAR: Final = "rgba(0, 0, 0, 0)"
HOVER: Final = "#1F2630"
DARK: Final = (BLUE,)  # on these white is easier to read than black


def on(colour: str) -> str:
    """Of words on a colour."""
    return "#FFFFFF" if colour in DARK else "#000000"


def series(place: int) -> tuple[str, str]:
    """Colour and marker of the n-th of several like things; they repeat, never both at once before 64."""
    return SERIES[place % len(SERIES)], SYMBOLS[(place + place // len(SERIES)) % len(SYMBOLS)]
