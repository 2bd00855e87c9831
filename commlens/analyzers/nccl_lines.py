"""What NCCL's profiler plugin knows, over the ranks: its choices, what its proxies waited for, what graphs replayed."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from commlens.analyzers.collective_line import NcclChoice
from commlens.analyzers.device_operations import Choice, Replayed
from commlens.analyzers.pooled import Like, Pool
from commlens.analyzers.ranks import RankFacts
from commlens.trace.schema import MISSING

STEP, RECORDING = "step", "recording"


@dataclass(frozen=True)
class NcclWaits:
    """What NCCL's network proxies waited for, on one rank for one group.

    The waits are sums over the steps (chunks) of the proxies, which overlap: they compare with one another, never with
    a duration. A group whose bytes took no network has no line.

    Attributes:
        rank: global rank.
        group: torch's name; NCCL's id of the communicator where it is no group's.
        per: "step": everything below is a mean over the analysed steps; "recording": a sum over all that was recorded,
            where no steps are known.
        operations: that proxies took part in.
        sent_bytes: by proxies.
        received_bytes: by proxies.
        send_gpu_ms: the GPU had not produced what is to be sent.
        send_peer_ms: the receiver had no room; None before NCCL 2.27, where it is part of `send_gpu_ms`.
        send_network_ms: the network had not sent it.
        recv_network_ms: the data had not come in.
        recv_flush_ms: it was not visible to the GPU yet.
        recv_gpu_ms: the GPU had not used it.
    """

    rank: int
    group: str
    per: str
    operations: float
    sent_bytes: float
    received_bytes: float
    send_gpu_ms: float | None
    send_peer_ms: float | None
    send_network_ms: float | None
    recv_network_ms: float | None
    recv_flush_ms: float | None
    recv_gpu_ms: float | None


@dataclass(frozen=True)
class NcclReplays:
    """Operations that CUDA graphs replayed: they passed no hook and belong to no recorded collective.

    Attributes:
        group: as in `NcclWaits`.
        op: torch's spelling.
        bytes: nccl-tests' message size, None where not known.
        per: as in `NcclWaits`; means over the ranks that replayed some.
        ranks: how many of those there are.
        operations: replayed.
        device_ms: sum of their durations, waiting for other ranks included; None where they are not known.
    """

    group: str
    op: str
    bytes: int | None
    per: str
    ranks: int
    operations: float
    device_ms: float | None


def nccl_choices(pool: Pool) -> list[NcclChoice | None]:
    """What NCCL chose most often for each kind of rows, None where no operation of it is known."""
    counts = _counts(pool)
    replays: Counter[tuple[str, str, int | None]] = Counter()
    for facts in pool.ranks:
        for each in facts.operations.replayed if facts.operations else ():
            replays[each.group, each.op, each.bytes] += each.operations
    return [_most(own, replays[_key(like)]) for own, like in zip(counts, pool.likes, strict=True)]


def _key(like: Like) -> tuple[str, str, int | None]:
    return like.group, like.op, None if like.bytes == MISSING else like.bytes


def _counts(pool: Pool) -> list[Counter[Choice]]:
    """Operations of each kind of rows, by what NCCL chose."""
    counts: list[Counter[Choice]] = [Counter() for _ in range(pool.count)]
    for facts, rows, keys in zip(pool.ranks, pool.chosen, pool.keys, strict=True):
        own = facts.operations
        if own is None:
            continue
        kind = np.full(facts.analysed.size, MISSING, np.int64)
        kind[rows] = keys
        known = kind[own.row] != MISSING
        pairs = kind[own.row][known] * len(own.choices) + own.choice[known]
        values, numbers = np.unique(pairs, return_counts=True)
        for value, number in zip(values.tolist(), numbers.tolist(), strict=True):
            counts[value // len(own.choices)][own.choices[value % len(own.choices)]] += number
    return counts


def _most(counts: Counter[Choice], graph: int) -> NcclChoice | None:
    total = sum(counts.values())
    if not total:
        return None
    choice, number = min(counts.items(), key=lambda each: (-each[1], str(each[0])))
    return NcclChoice(*choice, share=round(number / total, 6), operations=total, graph=graph)


def nccl_waits(ranks: Sequence[RankFacts]) -> tuple[NcclWaits, ...]:
    """A line for every rank and group whose bytes network proxies moved."""
    lines = []
    for facts in ranks:
        per, steps = _per(facts)
        for each in facts.operations.waited if facts.operations else ():
            counts = (round(each_of / steps, 6) for each_of in (each.operations, each.sent_bytes, each.received_bytes))
            lines.append(NcclWaits(facts.rank, each.group, per, *counts, *(_ms(ns, steps) for ns in each.waits_ns)))
    return tuple(lines)


def nccl_replays(ranks: Sequence[RankFacts]) -> tuple[NcclReplays, ...]:
    """A line for every group, operation and size that CUDA graphs replayed, what took longest first."""
    found: defaultdict[tuple[str, str, int | None, str], list[tuple[Replayed, int]]] = defaultdict(list)
    for facts in ranks:
        per, steps = _per(facts)
        for each in facts.operations.replayed if facts.operations else ():
            found[each.group, each.op, each.bytes, per].append((each, steps))
    lines = [_replays(*key, own) for key, own in found.items()]
    return tuple(sorted(lines, key=lambda line: (-(line.device_ms or 0), line.group, line.op, line.bytes or 0)))


def _replays(group: str, op: str, size: int | None, per: str, own: Sequence[tuple[Replayed, int]]) -> NcclReplays:
    times = [_ms(each.device_ns, steps) for each, steps in own]
    known = [time for time in times if time is not None]
    number = sum(each.operations / steps for each, steps in own) / len(own)
    time = round(sum(known) / len(known), 6) if known else None
    return NcclReplays(group, op, size, per, len(own), round(number, 6), time)


def _per(facts: RankFacts) -> tuple[str, int]:
    """What numbers of a rank are of, and how many of these there are."""
    steps = int(facts.steps.index.size)
    return (STEP, steps) if steps else (RECORDING, 1)


def _ms(ns: int | None, steps: int) -> float | None:
    return None if ns is None else round(ns / 1e6 / steps, 6)
