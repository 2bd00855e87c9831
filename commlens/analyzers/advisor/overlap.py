"""Overlap of communication with compute, and what the messages are cut into (rows O, but for FSDP's)."""

from __future__ import annotations

from commlens.analyzers.advisor.job import Job, change
from commlens.analyzers.advisor.rules import found, needs, no, of_model, on_gpus, told, with_op
from commlens.analyzers.advisor.technique import TRANSFER, WAIT, No, Rule, Technique, Told, Trial, Unknown, Verdict
from commlens.analyzers.advisor.worth import IDLE
from commlens.analyzers.numerals import counted, plain
from commlens.analyzers.own_work import HOST_BOUND
from commlens.analyzers.whatif.optimum import best_caps
from commlens.trace.change_kinds import EXACT, LOSSY, NEEDS_PERSON, RESEARCH

_MIB = 2**20
_SMALL = 65536  # bytes: latency more than bandwidth, on any network


def _hidden(job: Job) -> Verdict:
    overlap = job.report.time_budget.overlap
    if overlap is None:
        return Unknown("how much communication is hidden is not known")
    return No(f"{100 * overlap:.0f} % of communication is hidden behind compute")


def _present_mib(job: Job) -> float:
    """Size of the largest bucket, MiB."""
    model = job.model("DDP") or {}
    return float(max(model.get("bucket_bytes") or [0])) / _MIB


def _other_cap(larger: bool) -> Rule:
    """The best cap, where that makes buckets larger, or smaller."""

    def rule(job: Job) -> Verdict:
        best = job.best_cap
        if isinstance(best, str):
            return Unknown(best)
        cap, now = best.change.value, _present_mib(job)
        assert isinstance(cap, float)
        if (cap > now) != larger:
            return No(f"the largest bucket has {plain(now)} MiB, the best cap in the model is {plain(cap)} MiB")
        seen = f"buckets of up to {plain(now)} MiB; the best cap in the model is {plain(cap)} MiB"
        return Trial(seen, [[best.change]])

    return rule


def _cap_list(job: Job) -> Verdict:
    single, baseline = job.best_cap, job.simulator.baseline
    if isinstance(single, str) or baseline is None:
        return Unknown(str(single))
    best = best_caps(baseline, single)
    if isinstance(best, str) or best.change == single.change:
        return No(f"no list of caps beats one cap of {single.change.value} MiB in the model")
    return Trial("layers are uneven: a cap for each bucket", [[best.change]])


def _flag_off(name: str, rule: Rule) -> Rule:
    """Only where DDP was not already asked for it."""

    def checked(job: Job) -> Verdict:
        return No(f"DDP already has {name}=True") if job.flag(name) else rule(job)

    return checked


def _no_buffers(job: Job) -> Verdict:
    if job.flag("broadcast_buffers") is False:
        return No("DDP already has broadcast_buffers=False")
    sent = job.share("broadcast")
    if not sent.count:
        return No("no broadcast in a step")
    return Trial(f"{plain(sent.count)} broadcasts a step", [change("ddp.broadcast_buffers", False)])


def _stalls(job: Job) -> Verdict:
    if not job.on_gpus:
        return Unknown("on CPUs the host's own time is compute")
    parts = job.report.time_budget.other_parts_ms
    if parts is None:
        return Unknown("what devices did was not recorded")
    if job.idle <= IDLE:
        return No(f"devices stand still {100 * job.idle:.1f} % of the step without communication")
    idle = plain(parts.get(HOST_BOUND, 0.0))
    return Told(f"devices stand still {idle} ms a step with nothing launched: look for .item(), barriers, logging")


def _sequence(job: Job) -> Verdict:
    return Unknown("whether all-reduces belong to tensor parallelism is not recorded")


_SMALL_ONES: Rule = no(
    lambda job: f"the job sends {counted(job.share(below=_SMALL).count, 'collective')} a step below 64 KiB"
)

TECHNIQUES = (
    Technique(
        "O1",
        "overlap-backward",
        "gradients sent while backward runs (WFBP)",
        "strategy",
        EXACT,
        "DistributedDataParallel(model), or fully_shard(model), in place of all-reduces after backward",
        "communication takes some of the compute's speed where both run",
        "",
        found("no-overlap", "per-parameter-all-reduce", otherwise=_hidden),
    ),
    Technique(
        "O2",
        "larger-buckets",
        "tensor fusion: larger buckets",
        "strategy",
        EXACT,
        "DistributedDataParallel(model, bucket_cap_mb=...)",
        "the last bucket is larger, and nothing hides it",
        "a job whose last bucket is what is exposed",
        of_model(("DDP",), _other_cap(larger=True)),
    ),
    Technique(
        "O3",
        "bucket-list",
        "optimal merge of gradients (MG-WFBP)",
        "strategy",
        EXACT,
        "DistributedDataParallel(model, bucket_cap_mb_list=[...])",
        "none but upkeep: the list belongs to this model and this network",
        "",
        of_model(("DDP",), _cap_list),
        accepts="bucket_cap_mb_list",
    ),
    Technique(
        "O4",
        "smaller-buckets",
        "smaller buckets: a finer overlap",
        "strategy",
        EXACT,
        "DistributedDataParallel(model, bucket_cap_mb=...)",
        "more messages, each of which pays its latency",
        "networks with a high latency",
        of_model(("DDP",), _other_cap(larger=False)),
    ),
    Technique(
        "O4b",
        "small-last-bucket",
        "the small bucket last",
        "strategy",
        EXACT,
        "DDP_SET_LAST_BUCKET_CAP=1 in the environment",
        "the first bucket is sent later",
        "jobs whose last bucket is small already",
        of_model(
            ("DDP",),
            lambda job: Trial("nothing hides the last bucket", [change("ddp.last_bucket_cap", True)]),
        ),
    ),
    Technique(
        "O5",
        "priorities",
        "partitioned tensors with priorities (P3, ByteScheduler)",
        "strategy",
        RESEARCH,
        "",
        "more messages; collectives in flight cannot be overtaken",
        "jobs that hide their communication",
        told("no maintained version for PyTorch; sharding with fully_shard comes nearest"),
    ),
    Technique(
        "O6",
        "reduce-then-gather",
        "reduce-scatter in backward, all-gather in forward (DeAR)",
        "strategy",
        EXACT,
        "fully_shard(model, reshard_after_forward=False) in place of DDP",
        "another wrapper: checkpoints and clipping change",
        "small models",
        of_model(("DDP",), needs("the time each layer's forward takes")),
    ),
    Technique(
        "O10",
        "bucket-view",
        "gradients as views of the buckets",
        "strategy",
        EXACT,
        "DistributedDataParallel(model, gradient_as_bucket_view=True)",
        "none known",
        "code that detaches gradients",
        of_model(
            ("DDP",),
            _flag_off(
                "gradient_as_bucket_view",
                lambda job: Trial("gradients are copied", [change("ddp.gradient_as_bucket_view", True)]),
            ),
        ),
    ),
    Technique(
        "O11",
        "static-graph",
        "no search for unused parameters",
        "strategy",
        EXACT,
        "DistributedDataParallel(model, find_unused_parameters=False), or static_graph=True",
        "none where all parameters are used in every step",
        "models whose parameters are not all used in every step",
        of_model(
            ("DDP",),
            found(
                "find-unused",
                otherwise=no(lambda job: f"DDP has find_unused_parameters={job.flag('find_unused_parameters')}"),
            ),
        ),
    ),
    Technique(
        "O12",
        "no-buffer-broadcast",
        "no broadcast of buffers",
        "strategy",
        LOSSY,
        "DistributedDataParallel(model, broadcast_buffers=False)",
        "buffers, such as batch norm statistics, differ between ranks",
        "models whose buffers must be equal while they train",
        of_model(("DDP",), found("buffer-broadcast", otherwise=_no_buffers)),
    ),
    Technique(
        "O13",
        "optimizer-in-backward",
        "the optimizer's step within backward",
        "strategy",
        NEEDS_PERSON,
        "torch.distributed.optim._apply_optimizer_in_backward (private)",
        "no clipping by the norm of all gradients",
        "jobs that clip gradients",
        needs("whether gradients are clipped"),
    ),
    Technique(
        "O14",
        "async-tensor-parallel",
        "tensor parallelism with matrix products and transfers in pieces",
        "strategy",
        EXACT,
        "torch._inductor.config._micro_pipeline_tp = True, with torch.compile",
        "a prototype of the compiler",
        "groups that span hosts, GPUs without NVLink, tiny shapes",
        on_gpus(with_op(("all_gather",), needs("which collectives are tensor parallelism's"))),
    ),
    Technique(
        "O15",
        "sequence-parallel",
        "sequence parallelism: all-reduce as reduce-scatter and all-gather",
        "strategy",
        EXACT,
        "SequenceParallel() in the plan of parallelize_module",
        "none: the same bytes, less memory",
        "",
        on_gpus(_sequence),
    ),
    Technique(
        "O16",
        "pipeline-schedule",
        "another pipeline schedule, or more micro-batches",
        "strategy",
        EXACT,
        "torch.distributed.pipelining.ScheduleInterleaved1F1B, or ScheduleZBVZeroBubble; or more micro-batches",
        "memory for activations, more messages",
        "few layers for each stage",
        found("pipeline-bubble", otherwise=with_op(("send", "recv"), no(lambda job: "its bubble costs too little"))),
        WAIT,
    ),
    Technique(
        "O17",
        "balanced-experts",
        "experts that get as many tokens as one another",
        "strategy",
        NEEDS_PERSON,
        "a capacity factor, or an auxiliary loss, for the gate",
        "it changes which expert sees a token",
        "",
        found(
            "expert-imbalance",
            otherwise=with_op(
                ("all_to_all",),
                no(lambda job: "what ranks wait for in all-to-alls costs too little"),
            ),
        ),
        WAIT,
    ),
    Technique(
        "O19",
        "hidden-syncs",
        "no synchronisation of the host with its device in a step",
        "host",
        EXACT,
        "no .item(), barrier() or print of a loss in each step",
        "losses are seen some steps later",
        "",
        _stalls,
        None,
    ),
    Technique(
        "O20",
        "fused-small-collectives",
        "fewer small collectives (SyncBatchNorm, metrics, norms)",
        "strategy",
        EXACT,
        "with torch.distributed._coalescing_manager(): ...; metrics every N steps",
        "the first result comes as late as the last",
        "collectives each of which needs the one before",
        found("small-collectives", otherwise=_SMALL_ONES),
    ),
    Technique(
        "O21",
        "high-priority-stream",
        "communication on a stream of high priority",
        "ccl",
        EXACT,
        "TORCH_NCCL_HIGH_PRIORITY=1",
        "compute beside it may slow down",
        "",
        on_gpus(needs("how long collectives that are launched wait for multiprocessors")),
        TRANSFER,
    ),
    Technique(
        "O22",
        "compiler-overlap",
        "the compiler's own overlap and bucketing of collectives",
        "strategy",
        EXACT,
        "torch._inductor.config.aten_distributed_optimizations.enable_overlap_scheduling = True",
        "a prototype of the compiler",
        "jobs that are not compiled",
        on_gpus(needs("whether the model is compiled")),
    ),
)
