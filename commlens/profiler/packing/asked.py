"""Whether the ranks of a node are packed, and how: COMMLENS_PACK and COMMLENS_LOCAL."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Final, NamedTuple

from commlens.profiler import live

VARIABLE: Final = "COMMLENS_PACK"
LOCAL: Final = "COMMLENS_LOCAL"
LEAST_S, MOST_S = 1, 7 * 86_400
_OFF: Final = ("", "0", "off", "no", "false")
_FORM: Final = "node, node:600 (seconds between packs) or node,keep"


class Packing(NamedTuple):
    """How a node is packed: `every_s` apart, None at growing intervals; `keep` what has been packed."""

    every_s: float | None = None
    keep: bool = False


def asked() -> Packing | None:
    """What COMMLENS_PACK asks for; None where it asks for nothing. What it cannot mean costs one line."""
    said = os.environ.get(VARIABLE, "").strip().lower()
    if said in _OFF:
        return None
    try:
        return read_packing(said)
    except ValueError as error:
        live.warn(f"{VARIABLE}={said[:40]}: {error}; each rank writes into the run's folder")
        return None


def read_packing(text: str) -> Packing:
    """The packing that a text such as "node", "node:600" or "node:600,keep" asks for.

    Raises:
        ValueError: It is something else; the message is a clause.
    """
    first, *others = (each.strip() for each in text.split(","))
    word, _, number = first.partition(":")
    if word != "node" or any(each != "keep" for each in others):
        raise ValueError(f"give {_FORM}")
    if not number and ":" not in first:
        return Packing(None, bool(others))
    if not (number.isascii() and number.isdigit() and LEAST_S <= int(number[:9]) <= MOST_S):
        raise ValueError(f"the seconds between packs are a number from {LEAST_S} to {MOST_S}")
    return Packing(float(number[:9]), bool(others))


def local_folder() -> Path:
    """The folder of this node that holds runs until they are packed; all ranks of a node find the same one."""
    if named := os.environ.get(LOCAL, "").strip():
        return Path(named).expanduser().absolute()
    return Path(os.environ.get("SLURM_TMPDIR") or tempfile.gettempdir()) / f"commlens-{os.getuid()}"
