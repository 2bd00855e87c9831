"""Titles of `hang`: who waits for whom, in what, for how long."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from commlens.analyzers.abstentions import name_ranks
from commlens.analyzers.across.fates import ALIVE, GONE, LEFT, QUIET, Fate
from commlens.analyzers.across.roots import ABSENT, CIRCLE, TRANSFER, Root
from commlens.analyzers.across.stands import Stand
from commlens.analyzers.findings.naming import name_group, name_row, seconds
from commlens.analyzers.ranks import RankFacts


def hang_title(facts: Mapping[int, RankFacts], root: Root, fates: Sequence[Fate]) -> str:
    """What holds up the job, and how the others wait for it."""
    if root.kind == CIRCLE:
        return f"deadlock: {name_chain(facts, (*root.chain, root.chain[0]))}"
    what = name_stand(facts, root.stand)
    if root.kind == TRANSFER:
        title = f"{what} did not end{_how_long(root.stand, ' in')}, although every rank of the group issued it"
    elif root.kind == ABSENT:
        title = f"{name_ranks(root.ranks)} {_became(fates, root)}: {_waited(root.stand)} in {what}"
    else:
        title = f"{_waited(root.stand)} in {what} for {name_ranks(root.ranks)}, of which nothing was recorded"
    return title if len(root.chain) == 1 else f"{title}; {name_chain(facts, root.chain)}"


def name_stand(facts: Mapping[int, RankFacts], stand: Stand) -> str:
    """ "all_reduce of 4.0 MB float32 (sequence 57 of group 0)"."""
    wait = stand.waits[0]
    return f"{name_row(facts[wait.rank], wait.row)} (sequence {stand.seq} of {name_group(stand.matched.communicator)})"


def name_chain(facts: Mapping[int, RankFacts], chain: Sequence[Stand]) -> str:
    """ "rank 3 waits for rank 2 in all_reduce ..., rank 2 waits for rank 0 in all_gather ..."."""
    links = []
    for stand, following in pairwise(chain):
        whom = name_ranks(set(stand.absent) & set(following.ranks))
        waits = "waits" if len(stand.ranks) == 1 else "wait"
        links.append(f"{name_ranks(stand.ranks)} {waits} for {whom} in {name_stand(facts, stand)}")
    return ", ".join(links)


def _waited(stand: Stand) -> str:
    return f"{name_ranks(stand.ranks)} waited{_how_long(stand)}"


def _how_long(stand: Stand, word: str = "") -> str:
    """How long it stood; nothing where the recordings of those that wait break off before that is long."""
    return f"{word} {seconds(stand.waits[0].stood_s)}" if stand.too_long and not stand.waits[0].dumped else ""


def _became(fates: Sequence[Fate], root: Root) -> str:
    kind, verb = fates[0].kind, "was" if len(fates) == 1 else "were"
    if kind == LEFT:
        errors = {fate.error for fate in fates}
        by = f" by {errors.pop()}" if len(errors) == 1 and None not in errors else ""
        return f"had left (the process ended{by})"
    if kind == ALIVE:
        return f"{verb} alive but did not come"
    if kind not in (GONE, QUIET):
        return "did not come"
    earlier = min((fate.earlier_s for fate in fates if fate.earlier_s is not None), default=0.0)
    than = f" {seconds(earlier)} before that of rank {root.stand.waits[0].rank}" if earlier > 0 else ""
    what = "gone" if kind == GONE else "gone, or busy in its own code"
    return f"{verb} {what} (the recording stops{than})"
