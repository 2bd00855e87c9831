"""Findings buffer-broadcast and find-unused: communication that a setting of DDP asks for."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from commlens.analyzers.findings.buckets import bucket_rows
from commlens.analyzers.findings.build import fixing, severity
from commlens.analyzers.findings.context import Context
from commlens.analyzers.findings.model import Model, alike
from commlens.analyzers.findings.placed import Placed, Which, own_ms, per_step
from commlens.analyzers.findings.spent import exposed_ms
from commlens.analyzers.held import keep
from commlens.analyzers.report import Action, Evidence, Finding

_LATE = 0.5  # of the gradients are ready before the first bucket is
_FEWEST = 3  # times that DDP's search has to have found nothing


def find_ddp_settings(context: Context, ranks: Sequence[Placed]) -> list[Finding]:
    """Buffers that are broadcast before each forward, and a search for unused parameters where all are used."""
    model = alike(context, "DDP")
    if model is None or not ranks:
        return []
    return [*_buffers(context, model, ranks), *_search(context, model, ranks)]


def _buffers(context: Context, model: Model, ranks: Sequence[Placed]) -> list[Finding]:
    if not (model.flags.get("broadcast_buffers") or model.flags.get("forward_sync_buffers")):
        return []
    rows = keep(partial(_of_buffers, model=model), ranks)
    saved = exposed_ms(context, rows)
    if not context.matters(saved):
        return []
    count = per_step(ranks, rows)
    moved = per_step(ranks, rows, of="bytes")
    evidence = (
        Evidence("broadcasts in forward per step", round(count, 1), ""),
        Evidence("bytes they move per step", float(round(moved)), "B"),
        Evidence("their exposed transfer per step, mean over ranks", round(saved, 3), "ms"),
    )
    action = fixing(
        context,
        "ddp.broadcast_buffers=0",
        "leave each rank its own buffers, or use SyncBatchNorm where statistics have to be alike",
        change="DistributedDataParallel(model, broadcast_buffers=False)",
    )
    title = "DDP sends rank 0's buffers to all ranks before each forward, which waits for them"
    wrong = "the buffers of a rank are used in ways that need rank 0's, as in an evaluation on each rank's own data"
    return [_finding(context, "buffer-broadcast", title, model, saved, evidence, action, wrong, "high")]


def _of_buffers(rank: Placed, model: Model) -> Which:
    return rank.group(model.group) & rank.op("broadcast") & rank.issued_in("forward")


def _search(context: Context, model: Model, ranks: Sequence[Placed]) -> list[Finding]:
    if not model.flags.get("find_unused_parameters") or model.flags.get("static_graph"):
        return []
    found = [each.unused for each in context.models]
    if any(len(each) < _FEWEST or any(each) for each in found):
        return []
    rows = keep(partial(_used_map, model=model), ranks)
    table = exposed_ms(context, rows)
    held = _held_back_ms(context, model, ranks)
    saved = table + held
    if not context.matters(saved):
        return []
    count = per_step(ranks, rows)
    evidence = (
        Evidence("times DDP looked, and found all parameters used", float(min(map(len, found))), ""),
        Evidence("parameters", float(len(model.sizes)), ""),
        Evidence("all_reduces of which parameters were used, per step", round(count, 1), ""),
        Evidence("their exposed transfer per step, mean over ranks", round(table, 3), "ms"),
        *(
            [Evidence("exposed transfer of buckets that the first one held back, at most", round(held, 3), "ms")]
            * bool(held)
        ),
    )
    action = fixing(
        context,
        "ddp.find_unused_parameters=0",
        "do without the search: it also walks the graph in each forward, and keeps DDP from ordering its buckets",
        change="DistributedDataParallel(model, find_unused_parameters=False)",
    )
    title = "DDP searches each step for unused parameters, and all are used"
    wrong = (
        "some parameter goes unused in a step in which nobody looked: without the search DDP then ends with an error"
    )
    return [_finding(context, "find-unused", title, model, saved, evidence, action, wrong, "medium")]


def _held_back_ms(context: Context, model: Model, ranks: Sequence[Placed]) -> float:
    """Exposed transfer of buckets that backward could hide, were the first not ready so late, ms a step.

    DDP sends its buckets in order. While it searches, their order is that in which parameters were made, reversed.
    """
    if not model.ready or len(model.buckets) < 2:
        return 0.0
    before = _ready_before_first(model) / sum(model.sizes)
    if before < _LATE:
        return 0.0
    exposed = exposed_ms(context, keep(partial(bucket_rows, model=model), ranks))
    last = model.buckets[-1] / sum(model.buckets)  # which nothing hides in any order
    return min(exposed * (1 - last), before * own_ms(ranks, "backward"))


def _ready_before_first(model: Model) -> int:
    """Bytes of gradients that are ready before the first bucket that DDP sends is complete."""
    members, filled = set(), 0
    for place in range(len(model.sizes) - 1, -1, -1):
        if filled < model.buckets[0]:
            members.add(place)
            filled += model.sizes[place]
    complete = max(at for at, place in enumerate(model.ready) if place in members)
    return sum(model.sizes[place] for place in model.ready[:complete] if place not in members)


def _used_map(rank: Placed, model: Model) -> Which:
    """All_reduces of the table that says which parameters were used, shape (rows,)."""
    table = rank.group(model.group) & rank.op("all_reduce") & rank.dtype("int32", "int64", "uint8", "bool")
    wide = np.isin(rank.bytes, [len(model.sizes) * each for each in (1, 4, 8)])
    return np.asarray(table & wide & rank.issued_in("backward"))


def _finding(
    context: Context,
    id: str,
    title: str,
    model: Model,
    saved: float,
    evidence: tuple[Evidence, ...],
    action: Action,
    wrong: str,
    confidence: str,
) -> Finding:
    return Finding(
        id=id,
        title=title,
        layer="strategy",
        severity=severity(context, saved),
        confidence=confidence,
        ranks=(),
        group=model.group,
        steps=(),
        evidence=evidence,
        ceiling_ms=round(saved, 3),
        actions=(action,),
        could_be_wrong_if=(wrong, *context.caveats),
    )
