"""The table of changes: every name, the values it takes, what it means and what it risks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from commlens.trace import change_values as values
from commlens.trace.change_values import Value

# What a change risks.
#   exact           the same training, but for the order in which numbers are added
#   lossy           the gradients or buffers differ: accuracy has to be looked at
#   needs a person  it is changed outside the job, or it changes what the job computes
#   research only   no framework offers it
EXACT, LOSSY, NEEDS_PERSON, RESEARCH = RISKS = ("exact", "lossy", "needs a person", "research only")

ENV: Final = "env."

_IN_CODE = "it is changed in the job's code"
_NO_KNOB = "it is no setting of a job"


@dataclass(frozen=True)
class Kind:
    """One row of the vocabulary.

    Attributes:
        name: as it is written; "env." stands for every environment variable.
        takes: what a value looks like, for people.
        read: makes a value of its text; raises ValueError.
        meaning: one line.
        risk: one of `RISKS`.
        obstacle: why COMMLENS_FIX cannot apply it, None where it can.
    """

    name: str
    takes: str
    read: Callable[[str], Value]
    meaning: str
    risk: str
    obstacle: str | None = None


_FLAG = ("0 or 1", values.flag)
_HOOKS = "none, bf16, fp16, powersgd:rank=R or quantize"
_SCALED = "x and a factor, or"

KINDS: Final = (
    Kind("ddp.bucket_cap_mb", "MiB above 0", values.above_zero, "size of DDP's gradient buckets", EXACT),
    Kind("ddp.bucket_cap_mb_list", "MiB+MiB+...", values.sizes, "size of each of DDP's buckets in turn", EXACT),
    Kind("ddp.last_bucket_cap", *_FLAG, "DDP's small bucket is the last one sent, not the first", EXACT),
    Kind("ddp.gradient_as_bucket_view", *_FLAG, "gradients lie in the buckets: no copies", EXACT),
    Kind("ddp.static_graph", *_FLAG, "the same parameters are used in every step", EXACT),
    Kind("ddp.find_unused_parameters", *_FLAG, "DDP searches each step for parameters without gradient", EXACT),
    Kind("ddp.broadcast_buffers", *_FLAG, "rank 0's buffers are sent to all before each forward", LOSSY),
    Kind("ddp.comm_hook", _HOOKS, values.hook, "how DDP sends its gradients", LOSSY),
    Kind(
        "ddp.no_sync_every",
        "a count above 0",
        values.count,
        "gradients are reduced in every k-th micro-batch only",
        NEEDS_PERSON,
        f"{_IN_CODE}, with model.no_sync()",
    ),
    Kind(
        "wire.dtype",
        "float32, float16 or bfloat16",
        values.dtype,
        "data type of what is sent",
        LOSSY,
        f"{_IN_CODE}; DDP's gradients with ddp.comm_hook",
    ),
    # Exact where it says how NCCL, Gloo and the like move bytes: see Change.risk.
    Kind(ENV, "NAME=VALUE", values.word, "an environment variable of every rank", NEEDS_PERSON),
    Kind("link.bandwidth", f"{_SCALED} GB/s", values.scaled("GB/s"), "a faster or slower link", NEEDS_PERSON, _NO_KNOB),
    Kind("link.latency", f"{_SCALED} us", values.scaled("us"), "a link with other latency", NEEDS_PERSON, _NO_KNOB),
    Kind("straggler.remove", "1", values.yes, "no rank is slower than the others' median", NEEDS_PERSON, _NO_KNOB),
    Kind("imbalance.remove", "1", values.yes, "all ranks compute for equally long", NEEDS_PERSON, _NO_KNOB),
    Kind("overlap", "none or perfect", values.one_of("none", "perfect"), "how much is hidden", RESEARCH, _NO_KNOB),
    Kind(
        "sync.period",
        "a count above 0",
        values.count,
        "models are averaged every k-th step, no gradients reduced (local SGD)",
        LOSSY,
        f"{_IN_CODE}, with PostLocalSGDOptimizer",
    ),
    Kind(
        "allreduce.hierarchical",
        "ranks of a host",
        values.count,
        "all_reduces within hosts first, then between them",
        EXACT,
        "it takes a communication hook of one's own",
    ),
    Kind("world_size", "a count above 0", values.count, "ranks of the job", NEEDS_PERSON, "it is the launcher's"),
    Kind(
        "fsdp.reshard_after_forward",
        *_FLAG,
        "parameters are given up after forward and gathered again for backward",
        EXACT,
    ),
    Kind(
        "fsdp.prefetch",
        "a count",
        values.count_or_none,
        "units whose parameters are gathered ahead of their use",
        EXACT,
    ),
    Kind("fsdp.unit_merge", "a count above 0", values.count, "units gathered as one", EXACT, _IN_CODE),
    Kind("fsdp.shard_size", "a count above 0", values.count, "ranks that share one copy (HSDP)", EXACT, _IN_CODE),
    Kind("fsdp.reduce_dtype", "a data type", values.dtype, "data type of reduced gradients", LOSSY),
)
BY_NAME: Final = {kind.name: kind for kind in KINDS}
