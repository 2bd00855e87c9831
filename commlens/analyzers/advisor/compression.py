"""Fewer bytes on the wire (rows C). Nothing stronger than 16 bits before 16 bits, and both after what loses nothing."""

from __future__ import annotations

from commlens.analyzers.advisor.job import Job, change
from commlens.analyzers.advisor.rules import found, needs, of_model, told, with_op
from commlens.analyzers.advisor.technique import HALF, MORE, No, Rule, Technique, Trial, Unknown, Verdict
from commlens.analyzers.numerals import counted, plain
from commlens.trace.change_kinds import LOSSY, RESEARCH
from commlens.trace.change_values import Hook
from commlens.trace.changes import obstacle

_HALF = 0.5  # share of bytes that are sent in 16 bits, from which on there is nothing to halve
_SLOW_GB_S = 3.2  # 25 Gbit/s and the like
_ALL_GATHERED = 8  # ranks from which on all-gathering 8-bit copies moves more bytes than a ring all-reduce of 32 bits
_GATHERS = ("all_gather",)
_FSDP = ("FSDP2", "FSDP")


def _halved(job: Job) -> Verdict:
    if job.half_share > _HALF:
        return No(f"{100 * job.half_share:.0f} % of the gradients are sent in 16 bits already")
    return Trial(
        f"{100 * (1 - job.half_share):.0f} % of the gradients are sent in more", [change("ddp.comm_hook", Hook("bf16"))]
    )


def _halved_sharded(job: Job) -> Verdict:
    if job.half_share > _HALF:
        return No(f"{100 * job.half_share:.0f} % of the gradients are sent in 16 bits already")
    reason = f"{100 * (1 - job.half_share):.0f} % of the gradients are sent in more"
    return Trial(reason, [change("fsdp.reduce_dtype", "bfloat16")])


def on_slow_links(rule: Rule) -> Rule:
    """Only where the network is what is scarce: elsewhere compressing takes longer than it saves."""

    def checked(job: Job) -> Verdict:
        link = job.link_gb_s
        if link is None:
            return Unknown("the bandwidth of the slowest link is not known")
        if link > _SLOW_GB_S:
            return No(f"the slowest link moves {plain(link)} GB/s: it is for links below {_SLOW_GB_S} GB/s")
        return rule(job)

    return checked


def _quantized(job: Job) -> Verdict:
    ranks, hook = job.report.run.world_size, change("ddp.comm_hook", Hook("quantize"))
    if why := obstacle(hook[0], job.report.run.backend):
        return No(why)
    if ranks >= _ALL_GATHERED:
        return No(f"it all-gathers every rank's copy: with {ranks} ranks more bytes than an all-reduce in 32 bits")
    return Trial(counted(ranks, "rank"), [hook])


def _low_rank(job: Job) -> Verdict:
    model = job.model("DDP") or {}
    shapes = [each.get("shape") or [] for each in model.get("parameters") or []]
    large = sum(len(shape) > 1 and min(shape[0], _columns(shape)) >= 64 for shape in shapes)
    if not large:
        return No("no parameter is a matrix of at least 64 by 64")
    hooks = [change("ddp.comm_hook", Hook("powersgd", rank)) for rank in (1, 2, 4)]
    why = obstacle(hooks[0][0], job.report.run.backend)
    return Trial(f"{large} large matrices", hooks) if why is None else No(why)


def _columns(shape: list[int]) -> int:
    size = 1
    for length in shape[1:]:
        size *= length
    return size


def _embeddings(job: Job) -> Verdict:
    model = job.model("DDP", "module") or {}
    total = sum(each.get("num_bytes") or 0 for each in model.get("parameters") or [])
    largest = max((p for p in model.get("parameters") or []), key=lambda p: p.get("num_bytes") or 0, default=None)
    if largest is None or not total or (largest.get("num_bytes") or 0) < total / 2:
        return No("no single parameter makes up half of the gradients")
    return Unknown(f"{largest.get('name')} is most of the model; how many of its rows a step touches is not recorded")


_NO_HOOK = told("no framework ships it as a communication hook")

TECHNIQUES = (
    Technique(
        "C1",
        "half-gradients",
        "gradients sent in 16 bits",
        "strategy",
        LOSSY,
        "model.register_comm_hook(None, default_hooks.bf16_compress_hook) (fp16_compress_hook with loss scaling)",
        "two casts; sums of many ranks lose digits, fp16 overflows",
        "bf16 with more than 64 ranks, fp16 without loss scaling",
        of_model(("DDP",), found("wire-dtype", otherwise=_halved)),
        loses=HALF,
    ),
    Technique(
        "C2",
        "quantized-weights",
        "weights gathered in 8 bits",
        "strategy",
        LOSSY,
        'DeepSpeed: "zero_quantized_weights": true; torchao: float8 all-gather',
        "accuracy has to be looked at",
        "weights that change fast",
        of_model(_FSDP, with_op(_GATHERS, on_slow_links(needs("what casting takes on these devices")))),
        loses=MORE,
    ),
    Technique(
        "C3",
        "quantized-reduce-scatter",
        "gradients reduced in 4 or 8 bits",
        "strategy",
        LOSSY,
        'DeepSpeed: "zero_quantized_gradients": true',
        "accuracy has to be looked at",
        "one host",
        of_model(_FSDP, on_slow_links(needs("what quantising takes on these devices"))),
        loses=MORE,
    ),
    Technique(
        "C4",
        "quantized-gradients",
        "gradients quantised to 8 bits",
        "strategy",
        LOSSY,
        "model.register_comm_hook(group, quantization_hooks.quantization_pertensor_hook) (prototype)",
        "copies of all ranks are gathered: bytes grow with the ranks",
        "more than a few ranks",
        of_model(("DDP",), on_slow_links(_quantized)),
        loses=MORE,
    ),
    Technique(
        "C5",
        "one-bit",
        "one bit a value: 1-bit Adam, signSGD",
        "strategy",
        LOSSY,
        'DeepSpeed: "optimizer": {"type": "OneBitAdam", "params": {"freeze_step": N}}',
        "error feedback takes the gradients' memory; a first part of the training is not compressed",
        "ZeRO-3, links that can hide the gradients",
        of_model(("DDP",), on_slow_links(needs("what compressing takes on these devices"))),
        loses=MORE,
    ),
    Technique(
        "C6",
        "stochastic-quantization",
        "stochastic quantisation: QSGD, TernGrad",
        "strategy",
        RESEARCH,
        "",
        "more variance in the gradients",
        "fast networks",
        _NO_HOOK,
    ),
    Technique(
        "C7",
        "sparsification",
        "only the largest values: top-k, DGC",
        "strategy",
        RESEARCH,
        "",
        "finding them takes time; error feedback takes memory",
        "a density above one over the number of ranks",
        _NO_HOOK,
    ),
    Technique("C8", "global-top-k", "gTop-k", "strategy", RESEARCH, "", "as top-k", "as top-k", _NO_HOOK),
    Technique(
        "C9",
        "powersgd",
        "low rank: PowerSGD",
        "strategy",
        LOSSY,
        "model.register_comm_hook(PowerSGDState(group, matrix_approximation_rank=1, start_powerSGD_iter=1000), "
        "powerSGD_hook)",
        "error feedback takes the gradients' memory; products and orthogonalisation take time",
        "small matrices, accuracy that must not change",
        of_model(("DDP",), on_slow_links(_low_rank)),
        loses=MORE,
    ),
    Technique(
        "C10",
        "hybrid-compression",
        "several compressions together: 3LC, Qsparse-local-SGD, sketches",
        "strategy",
        RESEARCH,
        "",
        "the risks add up",
        "fast networks",
        _NO_HOOK,
    ),
    Technique(
        "C11",
        "error-feedback",
        "error feedback for lossy gradients",
        "strategy",
        LOSSY,
        "PowerSGDState(..., use_error_feedback=True), the default",
        "the gradients' memory once more",
        "",
        told("a part of PowerSGD and 1-bit Adam, nothing by itself"),
        loses=MORE,
    ),
    Technique(
        "C12",
        "compressed-activations",
        "activations sent in 8 bits between stages or shards",
        "strategy",
        RESEARCH,
        "",
        "errors add up over layers",
        "deep models",
        told("for tensor and pipeline parallelism in Transformer Engine; not judged from a recording"),
    ),
    Technique(
        "C13",
        "reduce-dtype",
        "FSDP: gradients reduced in 16 bits",
        "strategy",
        LOSSY,
        "MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.bfloat16)",
        "sums of many ranks lose digits",
        "many ranks, accuracy that must not change",
        of_model(_FSDP, found("wire-dtype", otherwise=_halved_sharded)),
        loses=HALF,
    ),
    Technique(
        "C14",
        "sparse-embeddings",
        "gradients of embeddings sent sparse",
        "strategy",
        LOSSY,
        "nn.Embedding(..., sparse=True)",
        "an optimizer that takes sparse gradients",
        "batches that touch most of the rows",
        _embeddings,
    ),
)
