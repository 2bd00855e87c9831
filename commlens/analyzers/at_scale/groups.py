"""Process groups of a report: who is in them, and which of them are of one kind."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, replace

from commlens.analyzers.report import Report
from commlens.trace.schema import POINT_TO_POINT

_UNNAMED = ("", "undefined")  # torch's words for a group without a description


@dataclass(frozen=True)
class Kind:
    """Process groups that do the same in a job: the same description and number of ranks.

    Attributes:
        desc: torch's description of the groups, "" where they have none.
        size: ranks of each, None where it is not known.
        alone: no other kind has this description.
    """

    desc: str
    size: int | None
    alone: bool = True

    @property
    def name(self) -> str:
        """ "data parallel", or what is known of groups that nobody described."""
        if self.size is None:
            return self.desc or "groups without a name"
        return self.desc if self.desc and self.alone else f"{self.desc or 'groups'} of {self.size:,}"

    @property
    def key(self) -> str:
        """Its name in addresses."""
        return f"{self.desc}~{self.size or ''}"


def kinds(report: Report) -> dict[str, Kind]:
    """The kind of each process group, by torch's name of the group."""
    found = {each.group: _kind(each.desc, len(each.members)) for each in report.progress if not each.point_to_point}
    for line in report.collectives:
        found.setdefault(line.group, _kind(line.group_desc, line.group_size))
    often = Counter(kind.desc for kind in set(found.values()))
    return {group: kind if often[kind.desc] == 1 else replace(kind, alone=False) for group, kind in found.items()}


def members(report: Report) -> dict[str, tuple[int, ...]]:
    """The global ranks of each process group, by torch's name of it, as far as the report tells them.

    Of a group of which only messages are known, those that sent or received some.
    """
    found = {each.group: set(each.members) for each in report.progress if not each.point_to_point}
    found |= {cost.group: set(cost.ranks) for cost in report.cost_model if cost.op not in POINT_TO_POINT}
    talked: defaultdict[str, set[int]] = defaultdict(set)
    for each in report.progress:
        if each.group not in found:
            talked[each.group] |= set(each.members)
    for cost in report.cost_model:
        if cost.group not in found:
            talked[cost.group] |= set(cost.ranks)
    return {group: tuple(sorted(ranks)) for group, ranks in {**found, **talked}.items()}


def _kind(desc: str, size: int | None) -> Kind:
    return Kind("" if desc in _UNNAMED else desc, size)
