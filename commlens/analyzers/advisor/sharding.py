"""What FSDP gathers and scatters, and when (its rows among the rows O)."""

from __future__ import annotations

from commlens.analyzers.advisor.job import Job, change
from commlens.analyzers.advisor.rules import found, needs, of_model, on_gpus, with_op
from commlens.analyzers.advisor.technique import No, Technique, Trial, Verdict
from commlens.trace.change_kinds import EXACT

_FSDP = ("FSDP2", "FSDP")
_GATHERS = ("all_gather",)


def _prefetched(job: Job) -> Verdict:
    gathers = job.share("all_gather")
    reason = f"{job.percent(gathers.exposed_ms)} is exposed all-gather"
    return Trial(reason, [change("fsdp.prefetch", 1), change("fsdp.prefetch", 2)])


def _kept(job: Job) -> Verdict:
    return Trial("parameters may be gathered twice a step", [change("fsdp.reshard_after_forward", False)])


def _hybrid(job: Job) -> Verdict:
    if job.hosts < 2:
        return No(f"sharding stays within {job.hosts or 1} host")
    return Trial(
        f"sharding spans {job.hosts} hosts", [change("fsdp.shard_size", job.report.run.world_size // job.hosts)]
    )


def _merged(job: Job) -> Verdict:
    return Trial("units are gathered one by one", [change("fsdp.unit_merge", k) for k in (2, 4)])


TECHNIQUES = (
    Technique(
        "O7",
        "fsdp-prefetch",
        "FSDP: gather parameters ahead",
        "strategy",
        EXACT,
        "module.set_modules_to_forward_prefetch([next, ...]), and set_modules_to_backward_prefetch",
        "memory of one more unit for each that is gathered ahead",
        "jobs near the end of their memory",
        of_model(_FSDP, with_op(_GATHERS, _prefetched)),
    ),
    Technique(
        "O8",
        "fsdp-keep",
        "FSDP: keep parameters after forward",
        "strategy",
        EXACT,
        "fully_shard(module, reshard_after_forward=False)",
        "memory of all unsharded parameters",
        "jobs near the end of their memory",
        of_model(_FSDP, with_op(_GATHERS, _kept)),
    ),
    Technique(
        "O9",
        "hybrid-sharding",
        "hybrid sharding (HSDP): sharded within a host, replicated between",
        "strategy",
        EXACT,
        'fully_shard(model, mesh=init_device_mesh("cuda", (hosts, per_host), mesh_dim_names=("replicate", "shard")))',
        "model states take as many times the memory as there are replicas",
        "models whose states do not fit one host",
        of_model(_FSDP, with_op(_GATHERS, _hybrid)),
    ),
    Technique(
        "O9b",
        "fsdp-merge",
        "FSDP: larger units",
        "strategy",
        EXACT,
        "fully_shard([block_a, block_b])",
        "memory of the larger unit; less overlap",
        "units whose transfer is far longer than the latency",
        of_model(_FSDP, with_op(_GATHERS, found("fsdp-unit-size", otherwise=_merged))),
    ),
    Technique(
        "O18",
        "fsdp-two-groups",
        "FSDP: reduce-scatter in a group of its own",
        "strategy",
        EXACT,
        "model.set_separate_reduce_scatter_group(True)",
        "experimental; a second communicator's memory",
        "links that one collective fills",
        of_model(_FSDP, on_gpus(needs("whether the link has bandwidth left beside an all-gather"))),
        accepts="set_separate_reduce_scatter_group",
    ),
)
