"""The process groups that a profiler's trace describes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from commlens.trace.importers.kineto_args import CommArgs
from commlens.trace.importers.kineto_rows import Rows

MOST_RANKS = 1 << 18  # of a job; more is damage
Members = Mapping[str, dict[str, Any]]  # of each group {name, desc, ranks, size}


def groups(rows: Rows, distributed: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The process groups that the file describes, by name."""
    found: dict[str, dict[str, Any]] = {}
    configured = distributed.get("pg_config")
    for each in configured if isinstance(configured, list) else []:
        if isinstance(each, dict) and isinstance(each.get("pg_name"), str):
            ranks = _ranks(each.get("ranks"))
            found[each["pg_name"]] = _group(each["pg_name"], each.get("pg_desc"), ranks, each.get("pg_size"))
    for args in (*rows.comm_args.values(), *(call.args for call in rows.calls)):
        if args.group and args.group not in found:
            found[args.group] = _group(args.group, args.desc, _all_ranks(args), args.group_size)
    return found


def _group(name: str, desc: object, ranks: list[int], size: object) -> dict[str, Any]:
    count = size if type(size) is int and 0 < size <= MOST_RANKS else len(ranks)
    return {"name": name, "desc": str(desc or ""), "ranks": ranks if len(ranks) == count else [], "size": count}


def _ranks(value: object) -> list[int]:
    """Global ranks, given as a list or as the text of one; of a shortened one what is there."""
    if isinstance(value, str):
        value = [int(word[:9]) for word in value.strip("[] ").replace(",", " ").split() if word.isdecimal()]
    return [each for each in value if type(each) is int and 0 <= each <= MOST_RANKS] if isinstance(value, list) else []


def _all_ranks(args: CommArgs) -> list[int]:
    """Global ranks of a group; the profiler shortens long lists, which their stride completes if it fits."""
    ranks, count = _ranks(args.ranks), args.group_size
    if len(ranks) >= 3 and len(ranks) < count <= MOST_RANKS and args.stride > 0:
        whole = list(range(args.first_rank, args.first_rank + args.stride * count, args.stride))
        if whole[: len(ranks) - 1] == ranks[:-1]:
            return whole
    return ranks
