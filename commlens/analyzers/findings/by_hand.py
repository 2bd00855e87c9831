"""Findings per-parameter-all-reduce and no-overlap: gradients that the job averages by hand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from statistics import fmean

import numpy as np

from commlens.analyzers.across.waits import Waits
from commlens.analyzers.findings.build import by_hand, severity
from commlens.analyzers.findings.context import Context
from commlens.analyzers.findings.model import Model
from commlens.analyzers.findings.naming import size
from commlens.analyzers.findings.placed import Placed, Which, own_ms, per_step
from commlens.analyzers.findings.spent import exposed_ms, transfer_ms
from commlens.analyzers.held import each, keep, keep_parts
from commlens.analyzers.report import Evidence, Finding
from commlens.trace.change_kinds import EXACT

_MANY = 10  # parameters
_SAME = 0.02  # by which the elements reduced may differ from those of the model: a loss, a norm
_MODEL = "model"


def find_by_hand(context: Context, ranks: Sequence[Placed]) -> list[Finding]:
    """Gradients that are all-reduced one by one, or after backward; one finding, since DDP cures both."""
    every = context.models
    if not every or not ranks or any(each.kind != "module" for each in every):
        return []
    one_by_one, one_for_each = keep_parts(2, _of_parameters, ranks, every)
    if all(one_for_each):
        return _per_parameter(context, ranks, every, one_by_one)
    afterwards = keep(_afterwards, ranks)
    return _no_overlap(context, ranks, afterwards) if all(each(_is_model, ranks, every, afterwards)) else []


def _of_parameters(rank: Placed, model: Model) -> tuple[Which, bool]:
    """All_reduces that each have the size of one parameter, shape (rows,); whether there is one for each of many."""
    sizes = Counter(model.sizes)
    rows = rank.op("all_reduce") & (rank.elements > 0) & np.isin(rank.bytes, list(sizes))
    if len(model.sizes) < _MANY:
        return rows, False
    seen = all(rank.per_step(rows & (rank.bytes == size)) >= number for size, number in sizes.items())
    return rows, seen and rank.per_step(rows) <= (1 + _SAME) * len(model.sizes) * max(rank.backwards(), 1)


def _afterwards(rank: Placed) -> Which:
    return np.asarray(rank.after_backward & rank.op("all_reduce", "reduce_scatter"))


def _is_model(rank: Placed, model: Model, rows: Which) -> bool:
    """Whether rows reduce as many elements a step as the model has."""
    return abs(rank.per_step(rank.elements * rows) / sum(model.elements) - 1) <= _SAME


def _per_parameter(
    context: Context, ranks: Sequence[Placed], every: Sequence[Model], rows: Sequence[Which]
) -> list[Finding]:
    exposed, moving = exposed_ms(context, rows), transfer_ms(context, rows)
    count = per_step(ranks, rows)
    backward_ms = own_ms(ranks, "backward")
    bytes_ms = _bytes_ms(context, ranks, rows)
    # In few messages their bytes are left, of which backward can hide what it is long enough for.
    saved = exposed - max(0.0, min(bytes_ms, exposed) - backward_ms)
    if not context.matters(saved):
        return []
    waited = per_step(ranks, keep(_after, ranks, rows))
    where = "after backward" if waited > count / 2 else "one by one"
    title = f"each of the {len(every[0].sizes)} parameters' gradients is all-reduced by itself, {where}"
    evidence = (
        Evidence("parameters", float(len(every[0].sizes)), ""),
        Evidence("all_reduces of a parameter's size per step", round(count, 1), ""),
        Evidence("of them issued after backward", round(waited, 1), ""),
        Evidence("their size, mean", float(round(sum(every[0].sizes) / len(every[0].sizes))), "B"),
        Evidence("transfer of one, mean", round(moving / max(count, 1), 4), "ms"),
        Evidence("their exposed transfer per step, mean over ranks", round(exposed, 3), "ms"),
    )
    return [_finding(context, "per-parameter-all-reduce", title, saved, evidence, _group(ranks[0], rows[0]))]


def _no_overlap(context: Context, ranks: Sequence[Placed], rows: Sequence[Which]) -> list[Finding]:
    exposed = exposed_ms(context, rows)
    backward_ms = own_ms(ranks, "backward")
    saved = min(exposed, backward_ms)
    if not context.matters(saved):
        return []
    moved = per_step(ranks, rows, of="bytes")
    evidence = (
        Evidence("bytes of gradients reduced after backward per step", float(round(moved)), "B"),
        Evidence("collectives that do it, per step", round(ranks[0].per_step(rows[0]), 1), ""),
        Evidence("their exposed transfer per step, mean over ranks", round(exposed, 3), "ms"),
        Evidence("computing in backward per step, beside which they could run", round(backward_ms, 3), "ms"),
    )
    title = f"all gradients ({size(round(moved))}) are reduced after backward, while nothing is computed"
    return [_finding(context, "no-overlap", title, saved, evidence, _group(ranks[0], rows[0]))]


def _bytes_ms(context: Context, ranks: Sequence[Placed], rows: Sequence[Which]) -> float:
    """What moving the bytes alone takes, ms a step: at the speed of the fastest of these rows."""
    found = [ms for ms in each(_at_best_ms, ranks, context.joined.waits, rows) if ms is not None]
    return fmean(found) if found else 0.0


def _after(rank: Placed, rows: Which) -> Which:
    """Those that were issued after backward."""
    return np.asarray(rows & rank.after_backward)


def _at_best_ms(rank: Placed, own: Waits, chosen: Which) -> float | None:
    known = chosen & (own.transfer_ns > 0)
    if not known.any():
        return None
    best = float((rank.bytes[known] / own.transfer_ns[known]).max())
    return rank.per_step(rank.bytes * chosen) / best / 1e6


def _group(rank: Placed, rows: Which) -> str | None:
    """Name of the group of the first of these rows."""
    column, first = rank.facts.columns.words["group"], np.flatnonzero(rows)
    code = int(column.codes[first[0]]) if first.size else -1
    return column.words[code] if code >= 0 else None


def _finding(
    context: Context, id: str, title: str, saved: float, evidence: tuple[Evidence, ...], group: str | None
) -> Finding:
    action = by_hand(
        "let DDP reduce the gradients: in few messages, while backward runs",
        change=f"{_MODEL} = DistributedDataParallel({_MODEL}), without the all_reduce after backward",
        risk=EXACT,
    )
    return Finding(
        id=id,
        title=title,
        layer="strategy",
        severity=severity(context, saved),
        confidence="high",
        ranks=(),
        group=group,
        steps=(),
        evidence=evidence,
        ceiling_ms=round(saved, 3),
        actions=(action,),
        could_be_wrong_if=(
            "what is reduced only has the size of the gradients, and is something else",
            *context.caveats,
        ),
    )
