"""Synchronisation and architectures: how often ranks agree, and through whom (rows S and A1 to A4)."""

from __future__ import annotations

from commlens.analyzers.advisor.job import Job, change
from commlens.analyzers.advisor.rules import found, no, of_model, told
from commlens.analyzers.advisor.technique import MORE, WAIT, No, Technique, Told, Trial, Verdict
from commlens.analyzers.numerals import counted, plain
from commlens.trace.change_kinds import EXACT, LOSSY, NEEDS_PERSON, RESEARCH

_SLOW_GB_S = 3.2  # 25 Gbit/s and the like: below, communicating less may be the only lever
_PERIOD = 8  # steps between averages that are tried first


def _stale(job: Job) -> Verdict:
    persistent = job.finding("straggler-rank", "expert-imbalance")
    if persistent is not None:
        return No(f"a late rank can be mended: {persistent.title}")
    return Told(f"ranks wait {plain(job.wait_ms or 0)} ms a step for one another; nobody maintains it for PyTorch")


def _accumulated(job: Job) -> Verdict:
    if job.finding("redundant-sync") is not None:
        return No("gradients are already accumulated; missing no_sync comes first")
    return Trial("gradients are reduced in every backward", [change("ddp.no_sync_every", k) for k in (2, 4)])


def _periodic(job: Job) -> Verdict:
    link = job.link_gb_s
    if link is None or link > _SLOW_GB_S:
        seen = "not known" if link is None else f"{plain(link)} GB/s"
        return No(f"the slowest link's bandwidth is {seen}: it is for links below {_SLOW_GB_S} GB/s")
    return Trial(f"the slowest link moves {plain(link)} GB/s", [change("sync.period", _PERIOD)])


def _one_rank_less(job: Job) -> Verdict:
    late = job.finding("straggler-rank")
    return Told("torchft can go on without a rank") if late is None else No(f"it can be mended: {late.title}")


_ONCE = no(lambda job: "no backward reduces gradients that are reduced again in the same step")

TECHNIQUES = (
    Technique(
        "S1",
        "synchronous-sgd",
        "synchronous SGD (BSP)",
        "strategy",
        EXACT,
        "",
        "every rank waits for the slowest",
        "",
        no(lambda job: "it is what the job does"),
        None,
    ),
    Technique(
        "S2",
        "stale-synchronous",
        "stale synchronous SGD (SSP)",
        "strategy",
        RESEARCH,
        "",
        "gradients are some steps old",
        "pre-training of large models, a rank that is always late",
        _stale,
        WAIT,
    ),
    Technique(
        "S3",
        "asynchronous",
        "asynchronous SGD (ASP)",
        "strategy",
        RESEARCH,
        "",
        "gradients are about as many steps old as there are ranks",
        "pre-training of large models, a rank that is always late",
        _stale,
        WAIT,
    ),
    Technique(
        "S4",
        "no-sync",
        "no_sync in gradient accumulation",
        "strategy",
        EXACT,
        "with model.no_sync(): in every micro-batch but the last (FSDP2: model.set_requires_gradient_sync(False))",
        "FSDP keeps unsharded gradients meanwhile",
        "one micro-batch a step",
        found("redundant-sync", otherwise=_ONCE),
    ),
    Technique(
        "S4b",
        "accumulate",
        "more gradient accumulation",
        "strategy",
        NEEDS_PERSON,
        "accumulate k micro-batches a step, with model.no_sync() in all but the last",
        "the global batch grows k times: learning rate and schedule have to follow",
        "a batch near its critical size",
        of_model(("DDP",), _accumulated),
    ),
    Technique(
        "S5",
        "local-sgd",
        "local SGD, averaging every H steps",
        "strategy",
        LOSSY,
        "PostLocalSGDOptimizer(optimizer, PeriodicModelAverager(period=H, warmup_steps=...)) with post_localSGD_hook",
        "averages are not hidden; accuracy and learning rate have to be looked at",
        "data that differ between ranks, batch norm statistics, links that can hide the gradients",
        of_model(("DDP",), _periodic),
        loses=MORE,
    ),
    Technique(
        "S6",
        "post-local-sgd",
        "post-local SGD: synchronous first, local later",
        "strategy",
        LOSSY,
        "PostLocalSGDState(process_group, subgroup, start_localSGD_iter=N), N beyond the learning rate's warm-up",
        "as local SGD, after N steps",
        "as local SGD",
        of_model(("DDP",), _periodic),
        loses=MORE,
    ),
    Technique(
        "S7",
        "diloco",
        "DiLoCo: an outer optimizer every H steps",
        "strategy",
        LOSSY,
        "torchft.local_sgd.DiLoCo(manager, fragments, inner_optimizer, outer_optimizer, sync_every=H)",
        "another optimizer's state; quality has to be validated anew",
        "one site, fine-tuning of small models",
        of_model(("DDP",), _periodic),
        loses=MORE,
    ),
    Technique(
        "S8",
        "elastic-averaging",
        "elastic averaging, SlowMo, BMUF, CO2",
        "strategy",
        RESEARCH,
        "",
        "more hyper-parameters",
        "links that can hide the gradients",
        told("no maintained version for PyTorch; local SGD is the nearest"),
    ),
    Technique(
        "S9",
        "lazy-gradients",
        "lazily aggregated or event-triggered gradients",
        "strategy",
        RESEARCH,
        "",
        "what is skipped depends on the data",
        "data that differ between ranks",
        told("no maintained version for PyTorch"),
    ),
    Technique(
        "S10",
        "backup-workers",
        "backup workers: go on without the slowest",
        "host",
        RESEARCH,
        "",
        "the data of those left out are lost: a bias",
        "a rank that is always late",
        _one_rank_less,
        WAIT,
    ),
    Technique(
        "A1",
        "parameter-server",
        "parameter servers",
        "strategy",
        RESEARCH,
        "",
        "the servers' links carry the bytes of all ranks",
        "like hosts: an all-reduce needs no more hosts and moves no more bytes",
        told("an all-reduce moves as few bytes, without more hosts"),
    ),
    Technique(
        "A2",
        "all-reduce",
        "all-reduce of gradients",
        "strategy",
        EXACT,
        "DistributedDataParallel(model), or fully_shard(model)",
        "every rank waits for the slowest",
        "",
        no(lambda job: f"the job sends {counted(job.share('all_reduce', 'reduce_scatter').count, 'reduction')} a step"),
        None,
    ),
    Technique(
        "A3",
        "gossip",
        "gossip: every rank agrees with few neighbours (D-PSGD, SGP)",
        "strategy",
        RESEARCH,
        "",
        "ranks differ: generalisation suffers with many",
        "few ranks, or a fast network",
        told("no maintained version for PyTorch"),
    ),
    Technique(
        "A4",
        "federated",
        "federated averaging over wide-area links",
        "strategy",
        RESEARCH,
        "",
        "as local SGD, with rounds of minutes",
        "one site",
        told("for separate sites; DiLoCo is the nearest"),
    ),
)
