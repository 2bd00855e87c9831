"""Finding redundant-sync: gradients are added up over micro-batches, and reduced after each."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from statistics import fmean

import numpy as np

from commlens.analyzers.findings.buckets import bucket_rows
from commlens.analyzers.findings.build import fixing, severity
from commlens.analyzers.findings.context import Context
from commlens.analyzers.findings.model import alike
from commlens.analyzers.findings.placed import Placed, Which, per_step
from commlens.analyzers.findings.spent import exposed_ms
from commlens.analyzers.held import each, keep
from commlens.analyzers.report import Evidence, Finding


def find_missing_no_sync(context: Context, ranks: Sequence[Placed]) -> list[Finding]:
    """Buckets that are sent in a backward after which another one follows before the optimizer's step."""
    model = alike(context, "DDP")
    if model is None or not model.buckets or not ranks:
        return []
    sent = keep(partial(bucket_rows, model=model), ranks)
    early = keep(_early, ranks, sent)
    needless = per_step(ranks, early) / len(model.buckets)
    needed = per_step(ranks, sent) / len(model.buckets) - needless
    saved = exposed_ms(context, early)
    if needless < 1 or needed <= 0 or not context.matters(saved):
        return []
    rounds = round(needless + needed)
    moved = per_step(ranks, early, of="bytes")
    action = fixing(
        context,
        f"ddp.no_sync_every={rounds}",
        "reduce only in the step's last backward: put the others, with their forwards, under no_sync()",
        change="with model.no_sync(): loss = model(x); loss.backward()  # all micro-batches but the last",
    )
    return [
        Finding(
            id="redundant-sync",
            title=f"DDP reduces all gradients {rounds} times a step, once after each micro-batch: once is enough",
            layer="strategy",
            severity=severity(context, saved),
            confidence="high",
            ranks=(),
            group=model.group,
            steps=(),
            evidence=(
                Evidence("backwards per step", round(fmean(each(Placed.backwards, ranks)), 1), ""),
                Evidence("times that all buckets are sent per step", round(needless + needed, 1), ""),
                Evidence("bytes sent before the last backward, per step", float(round(moved)), "B"),
                Evidence("exposed transfer of that per step, mean over ranks", round(saved, 3), "ms"),
            ),
            ceiling_ms=round(saved, 3),
            actions=(action,),
            could_be_wrong_if=(
                "the job uses, or drops, the averaged gradients between two backwards: then these are no micro-batches",
                *context.caveats,
            ),
        )
    ]


def _early(rank: Placed, rows: Which) -> Which:
    """Those that another backward follows."""
    return np.asarray(rows & rank.before_another)
