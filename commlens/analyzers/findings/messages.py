"""Finding small-collectives: messages that pay latency, not bandwidth."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from commlens.analyzers.across.like import Usual
from commlens.analyzers.findings.build import advice, severity
from commlens.analyzers.findings.context import Context
from commlens.analyzers.findings.naming import name_group, size
from commlens.analyzers.report import Evidence, Finding
from commlens.trace.schema import POINT_TO_POINT

_MANY = 10  # a step
_POOR = 0.1  # of the best bandwidth of the run: messages below it pay mostly latency
_ONE_PACKET = 1500  # bytes that travel in one Ethernet frame: they have no bandwidth, only latency
_Key = tuple[str, str, int | None]  # group, operation, bytes


def find_small_collectives(context: Context) -> list[Finding]:
    """Many collectives that pay latency rather than bandwidth."""
    usual = context.usual
    steps = max((facts.steps.index.size for facts in context.ranks), default=0)
    shared = [each for each in usual if each.op not in POINT_TO_POINT]
    if not shared or not steps:
        return []
    # Where all messages are small no bandwidth was seen, and none is subtracted.
    best = max((each.bytes / each.ms for each in usual if each.bytes > _ONE_PACKET), default=float("inf"))
    known = _known_regimes(context)
    small = [e for e in shared if _latency_bound(known.get((e.communicator.name, e.op, e.bytes), set()), e, best)]
    # Per rank: groups of the same kind lie beside one another.
    share = [len(each.communicator.present) / len(context.ranks) for each in small]
    count = sum(each.samples * part for each, part in zip(small, share, strict=True)) / steps
    exposed = sum(each.exposed_ms * part for each, part in zip(small, share, strict=True))
    # One call with all their bytes would still pay one latency, and move the bytes.
    saved = (1 - 1 / max(count, 1.0)) * sum(
        each.exposed_ms * part * max(0.0, 1 - each.bytes / best / each.ms)
        for each, part in zip(small, share, strict=True)
    )
    if count < _MANY or not context.matters(saved):
        return []
    moved = sum(each.bytes * each.samples * part for each, part in zip(small, share, strict=True)) / steps
    worst = max(small, key=lambda each: each.exposed_ms)
    mean = size(round(moved / count))
    costliest = f"{worst.op} of {size(worst.bytes)} in {name_group(worst.communicator)}"
    return [
        Finding(
            id="small-collectives",
            title=f"{count:.0f} collectives a step are so small ({mean} on average) that they pay only latency",
            layer="strategy",
            severity=severity(context, saved),
            confidence="high" if worst.bytes / worst.ms < _POOR * best / 3 else "medium",
            ranks=(),
            group=worst.communicator.name,
            steps=(),
            evidence=(
                Evidence("such collectives per step", round(count, 1), ""),
                Evidence("their exposed transfer per step, mean over ranks", round(exposed, 3), "ms"),
                Evidence("bytes they move per step", float(round(moved)), "B"),
                Evidence(
                    f"{costliest}, transfer of the {worst.measure}",
                    round(worst.ms, 4),
                    "ms",
                ),
                *_share(worst, best),
            ),
            ceiling_ms=round(float(saved), 3),
            actions=(
                advice(
                    "send them together: flatten tensors, or use a coalescing manager, DDP buckets, FSDP units",
                    change="with torch.distributed._coalescing_manager(): ...",
                    risk="the coalesced tensors need room, and the first result comes as late as the last",
                    verify="record again and compare",
                ),
            ),
            could_be_wrong_if=("each collective needs the result of the one before", *context.caveats),
        )
    ]


def _share(worst: Usual, best: float) -> list[Evidence]:
    if best == float("inf"):
        return []
    share = round(100 * worst.bytes / worst.ms / best, 2)
    return [Evidence("its share of the best algorithm bandwidth in this run", share, "%")]


def _known_regimes(context: Context) -> Mapping[_Key, set[str | None]]:
    """What the cost model says of each kind of collective."""
    regimes: defaultdict[_Key, set[str | None]] = defaultdict(set)
    for line in context.lines:
        regimes[line.group, line.op, line.bytes].add(line.regime)
    return regimes


def _latency_bound(regimes: set[str | None], each: Usual, best: float) -> bool:
    """By the cost model where it can tell, else by its size, or the best bandwidth seen in the run."""
    if regimes & {"latency-bound", "bandwidth-bound"}:
        return "latency-bound" in regimes and each.bytes / each.ms < 0.5 * best
    return each.bytes <= _ONE_PACKET or each.bytes / each.ms < _POOR * best
