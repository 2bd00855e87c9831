"""The process groups that a Flight Recorder dump tells of."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from commlens.trace.importers.flight_recorder_sizes import whole
from commlens.trace.schema import MISSING

DEFAULT: Final = "default_pg"  # torch's description of the group of all ranks
_DEFAULT_NAME: Final = "0"  # what told it before groups had descriptions
_MOST_RANKS: Final = 10_000_000


def read_groups(config: object) -> dict[str, dict[str, Any]]:
    """Groups by name, as for rank.json; those whose members are not told, Gloo's, are left out."""
    found = {}
    for key, value in config.items() if isinstance(config, dict) else ():
        said = value if isinstance(value, dict) else {}
        name, desc, ranks = said.get("name", key), said.get("desc"), _ranks(said.get("ranks"))
        if isinstance(name, str) and ranks:
            desc = desc if isinstance(desc, str) and desc != "undefined" else ""
            found[name] = {"name": name, "desc": desc, "ranks": ranks, "size": len(ranks)}
    return found


def _ranks(said: object) -> list[int]:
    """Global ranks in the group's order, written "[0, 1]" or as a list; none where they are neither."""
    if isinstance(said, str):
        said = [int(digits) for digits in re.findall(r"\d{1,9}", said)]
    ranks = list(said) if isinstance(said, list | tuple) else []
    right = all(MISSING < whole(rank) < _MOST_RANKS for rank in ranks) and len(set(ranks)) == len(ranks)
    return ranks if right else []


def world_size(groups: Iterable[Mapping[str, Any]]) -> int | None:
    """Size of the group of all ranks, None where it is not there."""
    for group in groups:
        if group["desc"] == DEFAULT or (group["name"] == _DEFAULT_NAME and not group["desc"]):
            return group["size"] if sorted(group["ranks"]) == list(range(group["size"])) else None
    return None
