"""Finding bucket-size: DDP's gradient buckets are so small that they pay latency, or so large that nothing overlaps."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from math import sqrt
from statistics import fmean

import numpy as np

from commlens.analyzers.across.waits import Timed
from commlens.analyzers.findings.build import fixing, severity
from commlens.analyzers.findings.context import Context
from commlens.analyzers.findings.model import Model, alike
from commlens.analyzers.findings.naming import size
from commlens.analyzers.findings.placed import Placed, Which, own_ms, per_step
from commlens.analyzers.findings.spent import exposed_ms, transfer_ms
from commlens.analyzers.held import each, keep
from commlens.analyzers.numerals import plain
from commlens.analyzers.report import Evidence, Finding
from commlens.trace.schema import MISSING

MIB = 2**20
_MANY = 10  # buckets
_SMALL = MIB  # bytes: torch's own first bucket, which is small on purpose
_MOSTLY = 0.5  # of a bucket's transfer is latency
_DEFAULT_MIB = 25
_PARTS = 8  # of a model, to be sent one after another: the last eighth cannot be hidden


def find_bucket_size(context: Context, ranks: Sequence[Placed]) -> list[Finding]:
    """Buckets that are too small or too large; none where DDP's buckets or their times are not known."""
    model = alike(context, "DDP")
    if model is None or not model.buckets or not ranks:
        return []
    rows = keep(partial(bucket_rows, model=model), ranks)
    if len(model.buckets) >= _MANY and fmean(model.buckets) < _SMALL:
        return _too_small(context, model, ranks, rows)
    whole = len(model.buckets) == 1 and model.buckets[0] > _SMALL
    return _too_large(context, model, ranks, rows) if whole and max(model.sizes) < sum(model.sizes) / 2 else []


def bucket_rows(rank: Placed, model: Model) -> Which:
    """A rank's rows that carry gradients of a DDP model, shape (rows,)."""
    reduced = rank.group(model.group) & rank.op("all_reduce") & rank.issued_in("backward")
    return np.asarray(reduced & (rank.elements > 0))


def _too_small(context: Context, model: Model, ranks: Sequence[Placed], rows: Sequence[Which]) -> list[Finding]:
    exposed, moving = exposed_ms(context, rows), transfer_ms(context, rows)
    sent = per_step(ranks, rows)
    total, best = fmean(model.buckets) * sent, _best_bandwidth(context, model)
    if not sent or not moving or best is None:
        return []
    latency_ms = (moving - total / best / 1e6) / sent  # of one bucket
    share = latency_ms * sent / moving
    if share < _MOSTLY:
        return []
    backward_ms = own_ms(ranks, "backward")
    cap = _cap_mib(sum(model.buckets), latency_ms, backward_ms)
    fewer = max(0.0, 1 - fmean(model.buckets) / (cap * MIB))
    saved = exposed * share * fewer
    if not context.matters(saved):
        return []
    evidence = (
        Evidence("buckets per backward", float(len(model.buckets)), ""),
        Evidence("a bucket's size, mean", float(round(fmean(model.buckets))), "B"),
        Evidence("its transfer, mean", round(moving / sent, 4), "ms"),
        Evidence(
            "of that latency: the rest moves its bytes at the best speed of this group", round(100 * share, 1), "%"
        ),
        Evidence("exposed transfer of buckets per step, mean over ranks", round(exposed, 3), "ms"),
    )
    title = f"DDP's {len(model.buckets)} gradient buckets are too small ({size(round(fmean(model.buckets)))} each)"
    wrong = "the largest message of the run was no measure of what the link can do: then the buckets pay for bytes"
    return [_finding(context, model, f"{title}: they pay mostly latency", saved, evidence, cap, wrong)]


def _too_large(context: Context, model: Model, ranks: Sequence[Placed], rows: Sequence[Which]) -> list[Finding]:
    exposed = exposed_ms(context, rows)
    backward_ms = own_ms(ranks, "backward")
    cap = max(sum(model.buckets) / MIB / _PARTS, max(model.sizes) / MIB)
    last = min(1.0, cap * MIB / sum(model.buckets))
    saved = min(exposed * (1 - last), backward_ms)
    if not context.matters(saved):
        return []
    asked = model.flags.get("bucket_bytes_cap")
    evidence = (
        Evidence("buckets per backward", 1.0, ""),
        Evidence("its size", float(model.buckets[0]), "B"),
        *([Evidence("bucket_cap_mb", round(asked / MIB, 3), "MiB")] if isinstance(asked, int) else []),
        Evidence("exposed transfer of the bucket per step, mean over ranks", round(exposed, 3), "ms"),
        Evidence("computing in backward per step, mean over ranks", round(backward_ms, 3), "ms"),
    )
    title = f"one DDP bucket of {size(model.buckets[0])} holds the whole model: nothing is sent while backward runs"
    wrong = "gradients all become ready at backward's end, as where one layer is used throughout"
    return [_finding(context, model, title, saved, evidence, min(cap, _DEFAULT_MIB), wrong)]


def _cap_mib(total: float, latency_ms: float, backward_ms: float) -> float:
    """Where the latency of more buckets outweighs the tail of larger ones: M sqrt(alpha / T), MiB; 25 at most."""
    best = total * sqrt(latency_ms / backward_ms) if backward_ms > 0 else total / 2
    return min(best, total / 2, _DEFAULT_MIB * MIB) / MIB


def _best_bandwidth(context: Context, model: Model) -> float | None:
    """Bytes per ns of the group's fastest all_reduce, the job's first steps among them; None where not known.

    Before DDP has seen the order of gradients it sends all of them in one message.
    """
    found = each(partial(_best_of, group=model.group), context.joined.timed)
    return max((best for best in found if best is not None), default=None)


def _best_of(timed: Timed, group: str | None) -> float | None:
    matched = timed.matched
    known = matched.is_op("all_reduce") & (timed.transfer_ns > 0) & (matched.bytes != MISSING)
    if matched.communicator.name != group or not known.any():
        return None
    return float((matched.bytes[known] / timed.transfer_ns[known]).max())


def _finding(
    context: Context, model: Model, title: str, saved: float, evidence: tuple[Evidence, ...], cap: float, wrong: str
) -> Finding:
    asked = f"{plain(cap, 2)}"
    action = fixing(
        context,
        f"ddp.bucket_cap_mb={asked}",
        f"make buckets of {asked} MiB, or try some: commlens whatif finds the best cap for this job",
        change=f"DistributedDataParallel(model, bucket_cap_mb={asked})",
    )
    return Finding(
        id="bucket-size",
        title=title,
        layer="strategy",
        severity=severity(context, saved),
        confidence="high",
        ranks=(),
        group=model.group,
        steps=(),
        evidence=evidence,
        ceiling_ms=round(saved, 3),
        actions=(action,),
        could_be_wrong_if=(wrong, *context.caveats),
    )
