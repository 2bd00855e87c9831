"""All findings of a run, the most recoverable time first."""

from __future__ import annotations

from collections.abc import Sequence

from commlens.analyzers.findings.accumulation import find_missing_no_sync
from commlens.analyzers.findings.buckets import find_bucket_size
from commlens.analyzers.findings.by_hand import find_by_hand
from commlens.analyzers.findings.context import Context
from commlens.analyzers.findings.ddp_settings import find_ddp_settings
from commlens.analyzers.findings.experts import find_expert_imbalance
from commlens.analyzers.findings.fsdp_units import find_one_unit
from commlens.analyzers.findings.links import find_slow_links
from commlens.analyzers.findings.messages import find_small_collectives
from commlens.analyzers.findings.on_links import find_on_links
from commlens.analyzers.findings.pipelines import find_pipeline_bubble
from commlens.analyzers.findings.placed import placed
from commlens.analyzers.findings.slowed_compute import find_slowed_compute
from commlens.analyzers.findings.stragglers import find_stragglers
from commlens.analyzers.findings.wire_dtype import find_wire_dtype
from commlens.analyzers.report import Finding

_OF_SMALL = ("bucket-size", "per-parameter-all-reduce")  # they say why messages are small


def find_findings(context: Context) -> tuple[Finding, ...]:
    """Findings worth at least `context.LEAST_SHARE` of a step, by their ceilings."""
    late, ranks = find_stragglers(context), placed(context)
    uneven = find_expert_imbalance(context, late)
    explained = {rank for each in uneven for rank in each.ranks}
    reduced = [*find_bucket_size(context, ranks), *find_by_hand(context, ranks)]
    found = [
        *(each for each in late if each.id != "straggler-rank" or not set(each.ranks) <= explained),
        *find_on_links(context, find_slow_links(context)),
        *_unexplained(find_small_collectives(context), reduced),
        *find_slowed_compute(context),
        *uneven,
        *reduced,
        *find_missing_no_sync(context, ranks),
        *find_wire_dtype(context, ranks),
        *find_ddp_settings(context, ranks),
        *find_one_unit(context, ranks),
        *find_pipeline_bubble(context, ranks),
    ]
    return tuple(sorted(found, key=lambda each: -(each.ceiling_ms or 0)))


def _unexplained(small: Sequence[Finding], reduced: Sequence[Finding]) -> list[Finding]:
    """Small messages of groups in which no other finding says why they are small."""
    groups = {each.group for each in reduced if each.id in _OF_SMALL}
    return [each for each in small if each.group not in groups]
