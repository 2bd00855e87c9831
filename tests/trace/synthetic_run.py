"""Runs made of synthetic rows, shared by the tests of the trace room."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from commlens.trace import RankWriter, write_run_info
from commlens.trace.schema import OPS


def batch(first: int, count: int, **replaced: Any) -> dict[str, Any]:
    """Collectives `first` to `first + count`, one a microsecond, on one group."""
    events = np.arange(first, first + count)
    columns = {
        "event": events,
        "group": (np.zeros(count, np.int16), ["world"]),
        "op": (np.zeros(count, np.int8), list(OPS)),
        "in_bytes": np.full(count, 4096),
        "issued_ns": 10_000 + events * 1000,
        "completed_ns": 10_000 + events * 1000 + 700,
        "timing": (np.zeros(count, np.int8), ["host"]),
    }
    return {**columns, **replaced}


class Maker:
    """Writes run folders under one parent."""

    def __init__(self, parent: Path) -> None:
        self.parent = parent

    def run(self, name: str = "run", ranks: tuple[int, ...] = (0,), rows: int = 5, **info: Any) -> Path:
        path = self.parent / name
        write_run_info(path, {"run_id": name, "world_size": len(ranks), **info})
        for rank in ranks:
            self.rank(path, rank, rows)
        return path

    def rank(self, path: Path, rank: int, rows: int = 5, **info: Any) -> Path:
        writer = RankWriter(path, rank)
        writer.write_info({"rank": rank, "run_id": path.name, **info})
        writer.append("collectives", batch(0, rows))
        writer.close()
        return writer.path
