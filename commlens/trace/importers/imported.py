"""What an importer makes of a file: ranks, as the tables of `trace.schema`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

# Integers with MISSING for unknown; of a names column (codes, words).
Column = NDArray[Any] | tuple[NDArray[Any], Sequence[str]]


@dataclass
class ImportedRank:
    """One rank as another tool recorded it.

    Attributes:
        source: the file it comes from.
        rank: global rank, None where the file does not tell.
        world_size: ranks of the job, None where the file does not tell.
        info: for rank.json, as far as known: host, groups [{name, desc, ranks, size}], device, ...
        run: for run.json, as far as known: backend, torch, nccl, ...
        tables: columns by table of `schema.TABLES`; a column left out is not known.
        notes: what a reader of results should know, one line each.
    """

    source: Path
    rank: int | None
    world_size: int | None
    info: dict[str, Any] = field(default_factory=dict)
    run: dict[str, Any] = field(default_factory=dict)
    tables: dict[str, Mapping[str, Column]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
