"""Finding wire-dtype: a model computes in 16 bits, and its gradients travel in 32."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np

from commlens.analyzers.collective_line import CollectiveLine
from commlens.analyzers.findings.buckets import bucket_rows
from commlens.analyzers.findings.build import by_hand, fixing, severity
from commlens.analyzers.findings.context import Context
from commlens.analyzers.findings.model import HALF, Model, alike
from commlens.analyzers.findings.placed import Placed, Which, per_step
from commlens.analyzers.findings.spent import exposed_ms, transfer_ms
from commlens.analyzers.held import each, keep
from commlens.analyzers.report import Action, Evidence, Finding
from commlens.trace.change_kinds import LOSSY

_HALVED = 0.5  # float32 to 16 bits
_MOST = 0.5  # of the model's elements


def find_wire_dtype(context: Context, ranks: Sequence[Placed]) -> list[Finding]:
    """Gradients sent as float32 where the model is known to compute in 16 bits."""
    model = alike(context, "DDP", "FSDP2", "FSDP", "module")
    if model is None or not ranks or model.flags.get("comm_hook"):
        return []
    short = _computes_in(model, ranks)
    if short is None:
        return []
    bound = _latency_bound(context)
    rows = keep(partial(_wide, model=model, bound=bound), ranks)
    sent = per_step(ranks, rows, of="elements")
    if sent < _MOST * sum(model.elements):
        return []
    exposed = exposed_ms(context, rows)
    saved = min(exposed, _HALVED * transfer_ms(context, rows))
    if not context.matters(saved):
        return []
    moved = per_step(ranks, rows, of="bytes")
    return [
        Finding(
            id="wire-dtype",
            title=f"the model computes in {short}, but its gradients travel as float32: twice the bytes",
            layer="strategy",
            severity=severity(context, saved),
            confidence="high",
            ranks=(),
            group=model.group,
            steps=(),
            evidence=(
                Evidence("bytes of gradients sent as float32 per step", float(round(moved)), "B"),
                Evidence(f"the same in {short}", float(round(_HALVED * moved)), "B"),
                Evidence("their exposed transfer per step, mean over ranks", round(exposed, 3), "ms"),
            ),
            ceiling_ms=round(saved, 3),
            actions=(_action(context, model, short),),
            could_be_wrong_if=(
                "the sum over ranks needs float32, as with many ranks or small gradients: compare the losses",
                *context.caveats,
            ),
        )
    ]


def _computes_in(model: Model, ranks: Sequence[Placed]) -> str | None:
    """The 16-bit data type of the model's computation, None where it is another or not known."""
    if model.autocast is not None:
        return model.autocast if model.autocast in HALF else None
    for half in HALF:
        if (
            sum(n for n, dtype in zip(model.elements, model.dtypes, strict=True) if dtype == half)
            > sum(model.elements) / 2
        ):
            return half
        if model.kind == "FSDP2" and all(each(partial(_gathers, dtype=half), ranks)):
            return half
    return None


def _gathers(rank: Placed, dtype: str) -> bool:
    return bool((rank.op("all_gather") & rank.dtype(dtype)).any())


def _wide(rank: Placed, model: Model, bound: Mapping[str, Sequence[CollectiveLine]]) -> Which:
    """Rows that carry gradients as float32, and would be faster with fewer bytes, shape (rows,)."""
    return np.asarray(_gradients(rank, model) & rank.dtype("float32") & ~_rows_of(bound, rank))


def _gradients(rank: Placed, model: Model) -> Which:
    """Rows that carry gradients, shape (rows,)."""
    if model.kind == "DDP":
        return bucket_rows(rank, model)
    if model.kind in ("FSDP2", "FSDP"):
        return rank.op("reduce_scatter")
    by_hand_ = rank.op("all_reduce", "reduce_scatter") & rank.after_backward
    return np.asarray(by_hand_)


def _latency_bound(context: Context) -> dict[str, list[CollectiveLine]]:
    """What fewer bytes would not make faster, by group."""
    found: dict[str, list[CollectiveLine]] = {}
    for line in context.lines:
        if line.regime == "latency-bound" and line.bytes is not None:
            found.setdefault(line.group, []).append(line)
    return found


def _rows_of(lines: Mapping[str, Sequence[CollectiveLine]], rank: Placed) -> Which:
    """Rows of any of the lines, shape (rows,). A rank is in few of a large job's groups."""
    rows = np.zeros(rank.bytes.size, bool)
    for group in rank.facts.columns.words["group"].words:
        for line in lines.get(group, ()):
            rows |= rank.group(group) & rank.op(line.op) & (rank.bytes == line.bytes)
    return rows


def _action(context: Context, model: Model, short: str) -> Action:
    if model.kind == "DDP":
        return fixing(
            context,
            f"ddp.comm_hook={HALF[short]}",
            f"send gradients as {short} with torch's communication hook",
            change=f"model.register_comm_hook(None, default_hooks.{HALF[short]}_compress_hook)",
        )
    if model.kind == "FSDP2":
        return fixing(
            context,
            f"fsdp.reduce_dtype={HALF[short]}",
            f"reduce gradients in {short}",
            change=f"fully_shard(module, mp_policy=MixedPrecisionPolicy(param_dtype=..., reduce_dtype=torch.{short}))",
        )
    change = f"small = grad.to(torch.{short}); dist.all_reduce(small); grad.copy_(small)"
    return by_hand(f"reduce gradients in {short}", change=change, risk=LOSSY)
