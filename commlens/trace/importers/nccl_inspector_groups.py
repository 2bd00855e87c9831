"""Who is in a communicator: known only from the logs of all its members together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any


def fill_members(ranks: Mapping[int, dict[str, Any]]) -> None:
    """Names the global ranks of groups, in the order of the communicator, where every member was imported.

    Args:
        ranks: `info` of each imported rank by its global rank; the `ranks` of its groups are filled in.
    """
    members: defaultdict[str, dict[int, set[int]]] = defaultdict(lambda: defaultdict(set))
    for rank, info in ranks.items():
        for group in info.get("groups", ()):
            members[group["name"]][group["rank"]].add(rank)
    for info in ranks.values():
        for group in info.get("groups", ()):
            places = [members[group["name"]][place] for place in range(group["size"])]
            if not group["ranks"] and all(len(who) == 1 for who in places):
                group["ranks"] = [next(iter(who)) for who in places]
