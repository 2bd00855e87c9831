"""Which ranks somebody asks for: "17,512-520", a host, a process group."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable
from typing import Final

from commlens.analyzers.at_scale.groups import members
from commlens.analyzers.at_scale.rank_sets import Ranked, all_ranks
from commlens.analyzers.report import Report
from commlens.errors import UsageError

HOW: Final = "give numbers (17), ranges (512-519, or 512:520:8 as in COMMLENS_RANKS), hosts, or group=NAME"
_SPAN: Final = re.compile(r"(\d{1,9})-(\d{1,9})")
_SLICE: Final = re.compile(r"(\d{1,9})?:(\d{1,9})?(?::([1-9]\d{0,8}))?")


def chosen(report: Report, text: str) -> tuple[Ranked, ...]:
    """What the report says of the ranks that `text` names, ascending.

    Args:
        report: of the run.
        text: words between commas, each a rank ("17"), a range with both ends ("512-519"), one without its end as
            Python's slices ("512:520", "0:4096:64"), a host, or a process group ("group=5"; without "group=" where no
            rank and no host is called so).

    Raises:
        UsageError: a word names nothing that was recorded.
    """
    ranks = all_ranks(report)
    known = {budget.rank for budget, _ in ranks}
    wanted: set[int] = set()
    for word in filter(None, (each.strip() for each in text.split(","))):
        named = _named(report, ranks, word)
        found = {number for number in known if number in named}
        if not found:
            raise UsageError(f"of {word!r} no rank was recorded: {HOW}")
        wanted |= found
    if not wanted:
        raise UsageError(f"no ranks are asked for: {HOW}")
    return tuple(rank for rank in ranks if rank[0].rank in wanted)


def _named(report: Report, ranks: Iterable[Ranked], word: str) -> Container[int]:
    """Ranks of one word; () where it names none."""
    if word.isdecimal() and len(word) < 10:
        return (int(word),)
    if span := _SPAN.fullmatch(word):
        return range(int(span[1]), int(span[2]) + 1)
    if word != ":" and (part := _SLICE.fullmatch(word)):
        return range(int(part[1] or 0), int(part[2] or report.run.world_size), int(part[3] or 1))
    name = word.removeprefix("host=")
    on_host = () if word.startswith("group=") else tuple(b.rank for b, line in ranks if line.host == name)
    return on_host or members(report).get(word.removeprefix("group="), ())
