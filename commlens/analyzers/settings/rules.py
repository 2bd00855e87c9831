"""What single environment variables do to communication.

Facts are those of torch's and NCCL's documentation of each variable. A setting is not wrong by itself: each note says
when it matters, and where it cannot matter it is only noted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from commlens.analyzers.settings.setting import BREAKS, COSTS, NOTED, Job, Setting, is_on, remedy

_SLOW_LOGS: Final = {"ALL", "COLL", "P2P", "NET", "PROXY", "CALL", "ALLOC", "PROFILE"}  # of NCCL_DEBUG_SUBSYS
_RENAMED: Final = {
    "NCCL_ASYNC_ERROR_HANDLING": "TORCH_NCCL_ASYNC_ERROR_HANDLING",
    "NCCL_BLOCKING_WAIT": "TORCH_NCCL_BLOCKING_WAIT",
    "NCCL_DESYNC_DEBUG": "TORCH_NCCL_DESYNC_DEBUG",
}


def is_(*values: str) -> Callable[[str], bool]:
    """Whether a value is one of these, in any case of letters."""
    return lambda value: value.lower() in [each.lower() for each in values]


def between_hosts(job: Job) -> bool:
    """Whether bytes may go from host to host."""
    return job.hosts != 1


def over_rdma(job: Job) -> bool:
    """Whether bytes may go from host to host over InfiniBand or RoCE."""
    return between_hosts(job) and job.rdma is not False


def within_host(job: Job) -> bool:
    """Whether a host may have several ranks."""
    return job.local_ranks != 1


def always(job: Job) -> bool:
    """In any job."""
    return True


@dataclass(frozen=True)
class Rule:
    """One variable: when it is remarkable, what it then does, and in which jobs that matters."""

    name: str
    holds: Callable[[str], bool]
    note: str
    kind: str = COSTS
    matters: Callable[[Job], bool] = always
    backend: str = "nccl"
    next: str = ""


_RULES: Final = (
    Rule("CUDA_LAUNCH_BLOCKING", is_on, "every kernel is waited for: nothing overlaps"),
    Rule(
        "CUDA_DEVICE_MAX_CONNECTIONS",
        is_("1"),
        "one queue for all kernels: tensor parallelism wants it, overlap suffers",
        NOTED,
    ),
    Rule(
        "NCCL_IB_DISABLE",
        is_on,
        "InfiniBand and RoCE are off: traffic between hosts goes over TCP",
        matters=over_rdma,
    ),
    Rule("NCCL_NET", is_("socket"), "traffic between hosts goes over TCP", matters=over_rdma),
    Rule(
        "NCCL_P2P_DISABLE",
        is_on,
        "GPUs of one host cannot reach each other directly (NVLink, PCIe)",
        matters=within_host,
    ),
    Rule(
        "NCCL_SHM_DISABLE",
        is_on,
        "GPUs of one host that have no direct path use the network",
        matters=within_host,
    ),
    Rule(
        "NCCL_NET_GDR_LEVEL",
        is_("LOC", "0"),
        "bytes between GPU and adapter go through the host's memory (no GPUDirect RDMA)",
        matters=over_rdma,
    ),
    Rule("NCCL_NVLS_ENABLE", is_("0"), "NVLink's switches do not reduce (NVLS off)", matters=within_host),
    Rule(
        "NCCL_ALGO",
        bool,
        "algorithms are pinned: NCCL no longer chooses by size, and NVIDIA advises against it in production",
    ),
    Rule(
        "NCCL_PROTO",
        is_("LL128"),
        "pinned to LL128, which may corrupt data where the hardware does not support it",
        BREAKS,
    ),
    Rule(
        "NCCL_PROTO",
        lambda value: bool(value) and value.lower() != "ll128",
        "protocols are pinned: NCCL no longer chooses by size, and NVIDIA advises against it in production",
    ),
    Rule("NCCL_DEBUG", is_("trace"), "NCCL logs every call: slow, for debugging only"),
    Rule(
        "NCCL_DEBUG",
        is_("info"),
        "NCCL logs while communicators are made, hardly later: costs start-up time and a long log",
        NOTED,
    ),
    Rule("TORCH_NCCL_BLOCKING_WAIT", is_on, "wait() holds the host thread until the collective is done"),
    Rule(
        "TORCH_NCCL_ASYNC_ERROR_HANDLING",
        is_("0"),
        "a rank whose collective fails or times out goes on: the others wait for ever",
    ),
    Rule("TORCH_NCCL_DESYNC_DEBUG", is_on, "each collective is noted in the store: many small requests to one host"),
    Rule(
        "TORCH_NCCL_ENABLE_TIMING",
        is_on,
        "CUDA events around every collective, and a greater chance that torch's watchdog hangs",
    ),
    Rule(
        "TORCH_DISTRIBUTED_DEBUG",
        is_("detail"),
        "every collective is preceded by a consistency check: much slower",
        backend="",
    ),
    Rule(
        "TORCH_DISTRIBUTED_DEBUG",
        is_("info"),
        "DDP times some of its iterations and prints them: a little slower",
        NOTED,
        backend="",
    ),
    Rule("TORCH_FR_BUFFER_SIZE", is_("0"), "torch's Flight Recorder is off: a hang leaves no dump", NOTED, backend=""),
    Rule(
        "OMP_NUM_THREADS",
        is_("1"),
        "work on the CPU runs on one thread a rank; torchrun sets this where nobody else does",
        NOTED,
        backend="",
    ),
)


def single_notes(settings: Mapping[str, str], job: Job) -> Iterator[Setting]:
    """What single variables do."""
    for rule in _RULES:
        value = settings.get(rule.name)
        if value is None or not rule.holds(value):
            continue
        given = ((rule.name, value),)
        if rule.backend and not job.may_use(rule.backend):
            yield Setting(given, f"no effect here, {rule.backend.upper()} is not used: {rule.note}", NOTED)
            continue
        kind = rule.kind if rule.matters(job) else NOTED
        yield Setting(given, rule.note, kind, "" if kind == NOTED else rule.next or remedy(rule.name))
    yield from _logs(settings, job)
    yield from _old_names(settings, job)


def _logs(settings: Mapping[str, str], job: Job) -> Iterator[Setting]:
    """What NCCL logs of every call, where it logs at all."""
    level, systems = settings.get("NCCL_DEBUG", ""), settings.get("NCCL_DEBUG_SUBSYS", "")
    slow = not systems.startswith("^") and _SLOW_LOGS & {each.strip().upper() for each in systems.split(",")}
    if level.upper() == "INFO" and slow and job.may_use("nccl"):
        given = (("NCCL_DEBUG_SUBSYS", systems), ("NCCL_DEBUG", level))
        yield Setting(given, "NCCL logs every call: slow, for debugging only", COSTS, remedy("NCCL_DEBUG_SUBSYS"))


def _old_names(settings: Mapping[str, str], job: Job) -> Iterator[Setting]:
    """Variables that torch has renamed; where both are set the new name wins."""
    for old, new in _RENAMED.items():
        if old not in settings or not job.may_use("nccl"):
            continue
        if new in settings and settings[new] != settings[old]:
            continue  # a conflict, told as such
        yield Setting(((old, settings[old]),), f"an old name, which torch may stop reading: it is {new} now", NOTED)


def renamed(settings: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Old and new names that are both set, to different values."""
    for old, new in _RENAMED.items():
        if old in settings and new in settings and settings[old] != settings[new]:
            yield old, new
