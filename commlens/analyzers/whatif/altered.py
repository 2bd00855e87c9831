"""What changes do to the model: one small function each, by the name of the change."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from commlens.analyzers.whatif.ddp_changes import comm_hook, no_sync_every, overlap, settings_of
from commlens.analyzers.whatif.link_changes import bandwidth, latency, wire_dtype
from commlens.analyzers.whatif.model import NO_OVERLAP, Altered, Model
from commlens.analyzers.whatif.rank_changes import remove_imbalance, remove_straggler
from commlens.analyzers.whatif.relaid import laid_out, relaid
from commlens.trace.changes import Change

REGISTRY: dict[str, Callable[[Model, Any], Altered]] = {
    "ddp.bucket_cap_mb": settings_of(bucket_cap_mb=float, bucket_cap_mb_list=lambda _: ()),
    "ddp.bucket_cap_mb_list": settings_of(bucket_cap_mb_list=tuple),
    "ddp.last_bucket_cap": settings_of(last_bucket_cap=bool),
    "ddp.comm_hook": comm_hook,
    "ddp.no_sync_every": no_sync_every,
    "wire.dtype": wire_dtype,
    "link.bandwidth": bandwidth,
    "link.latency": latency,
    "straggler.remove": remove_straggler,
    "imbalance.remove": remove_imbalance,
    "overlap": overlap,
}


def alter(model: Model, changes: Sequence[Change]) -> Altered:
    """The model with all of the changes, or why one of them cannot be simulated."""
    altered = model
    for change in changes:
        if change.name not in REGISTRY:
            return f"{change.name} cannot be simulated yet"
        step = REGISTRY[change.name](altered, change.value)
        if isinstance(step, str):
            return step
        altered = step
    return _with_buckets(model, altered)


def _with_buckets(before: Model, after: Model) -> Altered:
    """The model with the buckets that its gradients now go in."""
    old, new = before.gradients, after.gradients
    if old is None or new is None:
        return after
    same = (new.settings, new.item_bytes, len(new.rounds)) == (old.settings, old.item_bytes, len(old.rounds))
    if same and after.overlap != NO_OVERLAP:
        return after
    return relaid(after, new.layout if new.settings == old.settings else laid_out(after, new.settings))
