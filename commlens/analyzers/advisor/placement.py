"""The library, the network and the hosts: how bytes move, and between whom (rows A5 to A9, I, R)."""

from __future__ import annotations

from commlens.analyzers.advisor.job import Job
from commlens.analyzers.advisor.rules import between_hosts, found, needs, no, told, with_nccl
from commlens.analyzers.advisor.technique import WAIT, No, Rule, Technique, Told, Trial, Unknown, Verdict
from commlens.analyzers.numerals import plain
from commlens.trace.change_kinds import EXACT, NEEDS_PERSON, RESEARCH
from commlens.trace.changes import parse

_NCCL_LOG = needs("NCCL's log (NCCL_DEBUG=INFO)")


def _late(job: Job) -> str:
    return f"no rank is always late: ranks wait {plain(job.wait_ms or 0)} ms a step"


def _uneven(job: Job) -> Verdict:
    if late := job.finding("straggler-rank", "expert-imbalance"):
        return No(f"ranks are not late in turn: {late.title}")
    return Trial(f"ranks wait {plain(job.wait_ms or 0)} ms a step", [(parse("imbalance.remove=1"),)])


def _backend(job: Job) -> Verdict:
    if not job.on_gpus:
        return No("no tensor lies on a GPU")
    if "nccl" in job.backends or "gloo" not in job.backends:
        return No(f"backend: {', '.join(sorted(job.backends)) or 'not known'}")
    return Told("tensors on GPUs are sent over Gloo: init_process_group with cpu:gloo,cuda:nccl")


def _faster_link(job: Job) -> Verdict:
    return Trial("what a link twice as fast would gain", [(parse("link.bandwidth=x2"),)])


def _library(row: str, id: str, name: str, change: str, price: str, not_for: str, rule: Rule) -> Technique:
    return Technique(row, id, name, "ccl", EXACT, change, price, not_for, with_nccl(rule))


def _network(row: str, id: str, name: str, change: str, price: str, not_for: str, rule: Rule) -> Technique:
    return Technique(row, id, name, "network", NEEDS_PERSON, change, price, not_for, rule)


def _host(row: str, id: str, name: str, change: str, price: str, rule: Rule, shortens: str | None = WAIT) -> Technique:
    return Technique(row, id, name, "host", NEEDS_PERSON, change, price, "", rule, shortens)


CCL = (
    _library(
        "A5",
        "algorithm",
        "another algorithm or protocol of NCCL",
        "NCCL_ALGO=allreduce:tree, for a comparison only",
        "pinned in production it outlives its reason; LL128 must not be forced",
        "production",
        needs("NCCL's choice, or a sweep by nccl-tests with the other"),
    ),
    _library("A6", "nvls", "reduction in NVSwitch (NVLS)", "unset NCCL_NVLS_ENABLE=0", "none", "PCIe only", _NCCL_LOG),
    _library(
        "A7",
        "more-ctas",
        "more of the device's multiprocessors for communication",
        "NCCL_MIN_CTAS=16",
        "compute beside it has fewer",
        "communication that is hidden",
        needs("a sweep with other counts"),
    ),
    _library(
        "A8",
        "fewer-ctas",
        "fewer of the device's multiprocessors for communication",
        "NCCL_MAX_CTAS=8",
        "communication takes longer",
        "communication that is exposed",
        found("contention", otherwise=no(lambda job: "no compute kernel runs longer beside communication")),
    ),
    _library(
        "A9",
        "registered-buffers",
        "registered or symmetric buffers",
        "module.set_allocate_memory_from_process_group_for_comm(True)",
        "memory of the process group",
        "NCCL before 2.27",
        needs("a run with them"),
    ),
)

NETWORK = (
    _network("I1", "nvlink", "NVLink between a host's GPUs", "unset NCCL_P2P_DISABLE", "", "", with_nccl(_NCCL_LOG)),
    _network(
        "I2",
        "numa",
        "GPUs, NICs and cores of one socket together",
        "numactl, or the scheduler's binding",
        "",
        "",
        found("slow-link", "slow-group", otherwise=no(lambda job: "no link is slower than its like")),
    ),
    _network(
        "I3",
        "rdma",
        "RDMA in place of sockets",
        "unset NCCL_IB_DISABLE; NCCL_IB_HCA=...",
        "",
        "networks without it",
        between_hosts(with_nccl(_NCCL_LOG)),
    ),
    _network(
        "I4",
        "gpudirect",
        "GPUDirect RDMA",
        "load nvidia-peermem; NCCL_NET_GDR_LEVEL=PHB",
        "",
        "",
        between_hosts(with_nccl(_NCCL_LOG)),
    ),
    _network("I5", "all-nics", "every NIC of a host", "NCCL_IB_HCA=...", "", "", between_hosts(with_nccl(_NCCL_LOG))),
    _network(
        "I6",
        "congestion",
        "congestion on the network",
        "NCCL_IB_QPS_PER_CONNECTION=2, with the network's team",
        "",
        "",
        between_hosts(found("slow-link", otherwise=no(lambda job: "no link is slower than its like"))),
    ),
    _network("I7", "faster-link", "a faster link", "a network twice as fast", "a purchase", "", _faster_link),
    _network(
        "I8",
        "in-network-reduction",
        "reduction in the switches (SHARP)",
        "NCCL_COLLNET_ENABLE=1, with its plugin",
        "",
        "networks without it",
        between_hosts(with_nccl(_NCCL_LOG)),
    ),
    _network("I9", "smart-nics", "programmable NICs and switches", "", "", "", told("a research field")),
    _network("I10", "topology", "another topology of the network", "", "", "", told("a purchase; see placement first")),
    _network(
        "I11",
        "backend",
        "NCCL for tensors on GPUs",
        'init_process_group("cpu:gloo,cuda:nccl")',
        "none",
        "",
        _backend,
    ),
    _network("I12", "transport", "another transport protocol", "", "", "", told("chosen with the network")),
)


def _unlike(job: Job) -> Verdict:
    late = job.finding("straggler-rank")
    return Told(f"for a rank that cannot be mended: {late.title}") if late else No(_late(job))


def _paused(job: Job) -> Verdict:
    stall = job.finding("host-stall")
    if stall is None:
        return No("no step is far longer than the others")
    return Unknown(f"whether these pauses are checkpoints: {stall.title}")


def _placed(job: Job) -> Verdict:
    if job.hosts < 2:
        return No(f"the job runs on {job.hosts or 'an unknown number of'} host")
    scopes = {line.scope for line in job.report.cost_model}
    if scopes <= {None}:
        return Unknown("which hosts its groups span")
    return No("all groups span hosts") if "intra-node" not in scopes else Unknown("which parallelism each group is")


HOST = (
    _host(
        "R1",
        "mend-straggler",
        "mend or replace the rank that is late",
        "",
        "",
        found("straggler-rank", otherwise=no(_late)),
    ),
    _host(
        "R2",
        "balance-work",
        "the same work for every rank",
        "batches of equal cost; packed sequences; stages of equal time",
        "another order of the data",
        found("rotating-imbalance", otherwise=_uneven),
    ),
    _host(
        "R3",
        "data-loading",
        "data loaded ahead",
        "DataLoader(num_workers=..., pin_memory=True, prefetch_factor=...)",
        "memory and cores of the host",
        needs("the time a step waits for its input"),
    ),
    _host("R4", "placement", "heavy groups within a host", "another order of the mesh", "", _placed),
    _host(
        "R5",
        "other-jobs",
        "the network shared with other jobs",
        "",
        "",
        needs("the link's counters, or another job's times"),
        None,
    ),
    _host(
        "R6",
        "other-parallelism",
        "other degrees of parallelism",
        "",
        "",
        told("world_size=N of whatif is a first estimate"),
        None,
    ),
    _host(
        "R7",
        "unlike-hosts",
        "less work for slower devices",
        "a batch for each rank, with Join",
        "gradients have to be weighted",
        _unlike,
    ),
    _host(
        "R8",
        "async-checkpoints",
        "checkpoints written beside the training",
        "torch.distributed.checkpoint.async_save",
        "memory of a copy",
        _paused,
        None,
    ),
    Technique("R9", "inference", "scheduling of inference", "host", RESEARCH, "", "", "", told("not training"), None),
)

TECHNIQUES = (*CCL, *NETWORK, *HOST)
