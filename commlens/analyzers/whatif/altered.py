"""What changes do to the model: one small function each, by the name of the change."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from commlens.analyzers.whatif.buckets import Buckets
from commlens.analyzers.whatif.ddp_changes import comm_hook, no_sync_every, overlap, settings_of
from commlens.analyzers.whatif.ddp_flags import (
    broadcast_buffers,
    find_unused_parameters,
    gradient_as_bucket_view,
    static_graph,
)
from commlens.analyzers.whatif.fsdp_changes import prefetch, reduce_dtype, reshard_after_forward, unit_merge
from commlens.analyzers.whatif.gradients import Gradients
from commlens.analyzers.whatif.link_changes import bandwidth, latency, wire_dtype
from commlens.analyzers.whatif.model import NO_OVERLAP, Altered, Model
from commlens.analyzers.whatif.periodic import period
from commlens.analyzers.whatif.rank_changes import remove_imbalance, remove_straggler
from commlens.analyzers.whatif.relaid import laid_out, relaid
from commlens.analyzers.whatif.scale_changes import hierarchical, shard_size, world_size
from commlens.trace.changes import Change, Hook

REGISTRY: dict[str, Callable[[Model, Any], Altered]] = {
    "ddp.bucket_cap_mb": settings_of(bucket_cap_mb=float, bucket_cap_mb_list=lambda _: ()),
    "ddp.bucket_cap_mb_list": settings_of(bucket_cap_mb_list=tuple),
    "ddp.last_bucket_cap": settings_of(last_bucket_cap=bool),
    "ddp.find_unused_parameters": find_unused_parameters,
    "ddp.static_graph": static_graph,
    "ddp.broadcast_buffers": broadcast_buffers,
    "ddp.gradient_as_bucket_view": gradient_as_bucket_view,
    "ddp.comm_hook": comm_hook,
    "ddp.no_sync_every": no_sync_every,
    "wire.dtype": wire_dtype,
    "link.bandwidth": bandwidth,
    "link.latency": latency,
    "straggler.remove": remove_straggler,
    "imbalance.remove": remove_imbalance,
    "overlap": overlap,
    "sync.period": period,
    "world_size": world_size,
    "allreduce.hierarchical": hierarchical,
    "fsdp.reshard_after_forward": reshard_after_forward,
    "fsdp.prefetch": prefetch,
    "fsdp.unit_merge": unit_merge,
    "fsdp.reduce_dtype": reduce_dtype,
    "fsdp.shard_size": shard_size,
}

_SENDING = frozenset(
    {
        *(name for name in REGISTRY if name.startswith("ddp.") and name != "ddp.broadcast_buffers"),
        "wire.dtype",
        "overlap",
    }
)
_COMPRESSING = frozenset({"powersgd", "quantize"})


def alter(model: Model, changes: Sequence[Change]) -> Altered:
    """The model with all of the changes, or why one of them cannot be simulated."""
    altered = set_up(model, changes)
    return altered if isinstance(altered, str) else with_buckets(model, altered)


def set_up(model: Model, changes: Sequence[Change]) -> Altered:
    """The model with all of the changes but for DDP's buckets, which `with_buckets` lays out."""
    if contradiction := _contradiction(changes):
        return contradiction
    altered = model
    for change in changes:
        if change.name not in REGISTRY:
            return f"{change.name} cannot be simulated"
        step = REGISTRY[change.name](altered, change.value)
        if isinstance(step, str):
            return step
        altered = step
    return altered


def _contradiction(changes: Sequence[Change]) -> str | None:
    """Why changes do not go together, None where they do."""
    names = {change.name for change in changes}
    if "sync.period" in names and (idle := sorted(names & _SENDING)):
        return f"with sync.period no gradients are reduced that {idle[0]} could change"
    if len(sized := sorted(names & {"world_size", "allreduce.hierarchical", "fsdp.shard_size"})) > 1:
        return f"{sized[0]} and {sized[1]} both change which ranks take part in a collective: try one at a time"
    hooks = {change.value.name for change in changes if isinstance(change.value, Hook)}
    if hooks & _COMPRESSING and (other := sorted(names & {"wire.dtype", "world_size", "allreduce.hierarchical"})):
        return f"what a hook that compresses costs with {other[0]} is not known"
    return None


def with_buckets(before: Model, after: Model) -> Altered:
    """The model with the buckets that its gradients now go in."""
    old, new = before.gradients, after.gradients
    if old is None or new is None:
        return after
    layout = layout_of(before, after) or ()
    if after.overlap != NO_OVERLAP and _sent_as(new, layout) == _sent_as(old, before.layout):
        return after
    return relaid(after, layout)


def layout_of(before: Model, after: Model) -> Buckets | None:
    """The buckets that `with_buckets` lays out."""
    old, new = before.gradients, after.gradients
    if old is None or new is None:
        return after.layout
    return new.layout if new.settings == old.settings else laid_out(after, new.settings)


def _sent_as(gradients: Gradients, layout: Buckets | None) -> tuple[object, ...]:
    """All that decides which collectives carry the gradients."""
    return layout, gradients.settings.maps_used, gradients.item_bytes, gradients.hook, len(gradients.rounds)
