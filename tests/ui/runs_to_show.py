"""Runs of every kind that a page has to show."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

from synthetic import RankTruth, training_rank, write_run

sys.path.insert(0, str(Path(__file__).parents[2] / "bench"))

from big_run import make_run

HOSTILE = "<img src=x onerror=alert(1)>../../%{x}$\"'</script>\x07"


def faulty(folder: Path, ranks: int = 8, steps: int = 12, collectives: int = 40) -> Path:
    """One rank is slower than the others."""
    make_run(folder, ranks, steps, collectives, seed=3)
    return folder


def partial(folder: Path) -> Path:
    """A rank is missing, and the end of another's table."""
    faulty(folder)
    shutil.rmtree(folder / "rank-00003")
    table = folder / "rank-00005" / "collectives.arrows"
    table.write_bytes(table.read_bytes()[: table.stat().st_size // 2])
    return folder


def healthy(folder: Path) -> Path:
    """Two ranks that do the same."""
    return write_run(folder, {rank: training_rank(12) for rank in range(2)})


def growing(folder: Path) -> Path:
    """No rank has ended."""
    healthy(folder)
    for path in folder.glob("rank-*/rank.json"):
        info = json.loads(path.read_text())
        info.pop("end", None)
        path.write_text(json.dumps(info))
    return folder


def single(folder: Path) -> Path:
    """One rank."""
    return write_run(folder, {0: training_rank(6)}, world_size=1)


def silent(folder: Path) -> Path:
    """No collective."""
    return write_run(folder, {rank: replace(training_rank(6), collectives=()) for rank in range(2)})


def empty(folder: Path) -> Path:
    """Ranks that did nothing."""
    return write_run(folder, {rank: RankTruth() for rank in range(2)})


def hostile(folder: Path) -> Path:
    """Hosts and groups with names that nobody should have chosen."""
    faulty(folder, ranks=4, steps=6)
    for path in folder.glob("rank-*/rank.json"):
        path.write_text(path.read_text().replace('"node-000"', json.dumps(HOSTILE)))
    return folder


KINDS = {each.__name__: each for each in (faulty, partial, healthy, growing, single, silent, empty, hostile)}
