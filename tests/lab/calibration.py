"""The calibration of a healthy synthetic link, as `commlens calibrate` would measure it."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

from lab.plan import Plan, port_bytes

from commlens.trace.calibration import (
    CALIBRATION_FILE,
    INTRA,
    Calibration,
    CalibrationEntry,
    MadeWith,
    write_calibration,
)

OPS = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all")
SIZES = tuple(4**power for power in range(3, 12))


def write_healthy(run: Path, link: Plan, ranks: int) -> None:
    """Puts the link's times into a run's folder."""
    entries = tuple(_entry(op, link, tuple(range(ranks))) for op in OPS)
    made = Calibration("the lab's healthy link", MadeWith(version("torch"), "gloo"), entries)
    write_calibration(run / CALIBRATION_FILE, made)


def _entry(op: str, link: Plan, members: tuple[int, ...]) -> CalibrationEntry:
    alpha, beta = link.alpha_beta(members)
    # `port_bytes` of nccl-tests' message size, which is what is gathered or scattered in all.
    times = tuple((alpha + beta * port_bytes(op, len(members), size, size)) / 1e3 for size in SIZES)
    return CalibrationEntry(op, members, len(members), INTRA, SIZES, times)
