"""Which run a command is about."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from commlens.errors import RunNotFoundError

if TYPE_CHECKING:
    from commlens.trace import Run

RUNS = Path("commlens-runs")  # where the recorder writes unless told otherwise


def open_chosen(paths: Sequence[Path] | None) -> Run:
    """Open the run in `paths`, or the newest one where none is given.

    Args:
        paths: a run's folder, or several that hold parts of the same run.

    Raises:
        CommlensError: there is no such run, or it cannot be read.
    """
    from commlens.trace import open_run

    if paths:
        return open_run(list(paths))
    if not RUNS.is_dir():
        raise RunNotFoundError(f"no run given, and there is no ./{RUNS}; record one with: commlens run -- torchrun ...")
    return open_run(RUNS)
