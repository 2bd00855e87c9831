"""Settings that work against each other, against the job's models, or against the machine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from commlens.analyzers.numerals import counted
from commlens.analyzers.settings.rules import renamed
from commlens.analyzers.settings.setting import BREAKS, CONTRADICTS, COSTS, Job, Setting, is_on, remedy

_MOST_SOCKETS: Final = 64  # NCCL's limit of threads times sockets a thread
_WAITS: Final = "what moves bytes waits for a core"
_LOOPBACK: Final = ("localhost", "127.", "::1")


def conflicts(settings: Mapping[str, str], job: Job) -> Iterator[Setting]:
    """Every conflict that these settings have."""
    if job.may_use("nccl"):
        yield from _networks(settings)
        yield from _error_handling(settings)
        yield from _numbers(settings)
        yield from _queues(settings, job)
    yield from _dumps(settings)
    yield from _threads(settings, job)
    yield from _rendezvous(settings)


def _pair(settings: Mapping[str, str], change: str, other: str, note: str, kind: str, what: str = "") -> Setting:
    return Setting(((change, settings[change]), (other, settings[other])), note, kind, what or remedy(change))


def _networks(settings: Mapping[str, str]) -> Iterator[Setting]:
    off = is_on(settings.get("NCCL_IB_DISABLE"))
    if off and settings.get("NCCL_NET", "").lower() == "ib":
        note = "one asks for InfiniBand, the other turns it off: NCCL finds no network it may use"
        yield _pair(settings, "NCCL_IB_DISABLE", "NCCL_NET", note, BREAKS)
    if settings.get("NCCL_IB_HCA"):
        if off:
            yield _pair(settings, "NCCL_IB_DISABLE", "NCCL_IB_HCA", "the adapters named are not used", CONTRADICTS)
        elif settings.get("NCCL_NET", "").lower() == "socket":
            yield _pair(settings, "NCCL_NET", "NCCL_IB_HCA", "the adapters named are not used", CONTRADICTS)
    if is_on(settings.get("NCCL_P2P_DISABLE")) and settings.get("NCCL_P2P_LEVEL"):
        yield _pair(settings, "NCCL_P2P_DISABLE", "NCCL_P2P_LEVEL", "the level has no effect", CONTRADICTS)


def _error_handling(settings: Mapping[str, str]) -> Iterator[Setting]:
    handles = is_on(settings.get("TORCH_NCCL_ASYNC_ERROR_HANDLING"))
    if is_on(settings.get("TORCH_NCCL_BLOCKING_WAIT")) and handles:
        note = "torch takes only TORCH_NCCL_BLOCKING_WAIT, and does not handle errors of collectives nobody waits for"
        yield _pair(settings, "TORCH_NCCL_BLOCKING_WAIT", "TORCH_NCCL_ASYNC_ERROR_HANDLING", note, CONTRADICTS)
    for old, new in renamed(settings):
        yield _pair(settings, old, new, f"two names of one setting: {new} wins", CONTRADICTS)


def _numbers(settings: Mapping[str, str]) -> Iterator[Setting]:
    for least, most in (("NCCL_MIN_CTAS", "NCCL_MAX_CTAS"), ("NCCL_MIN_NCHANNELS", "NCCL_MAX_NCHANNELS")):
        low, high = _whole(settings, least), _whole(settings, most)
        if low is not None and high is not None and low > high:
            yield _pair(settings, least, most, "the least is more than the most", CONTRADICTS)
    threads, sockets = _whole(settings, "NCCL_SOCKET_NTHREADS"), _whole(settings, "NCCL_NSOCKS_PERTHREAD")
    if threads is not None and sockets is not None and threads * sockets > _MOST_SOCKETS:
        note = f"{threads * sockets} sockets a connection: NCCL takes at most {_MOST_SOCKETS}"
        yield _pair(settings, "NCCL_NSOCKS_PERTHREAD", "NCCL_SOCKET_NTHREADS", note, CONTRADICTS)


def _queues(settings: Mapping[str, str], job: Job) -> Iterator[Setting]:
    name = "CUDA_DEVICE_MAX_CONNECTIONS"
    sharded = sorted(kind for kind in job.models or () if "FSDP" in kind or kind == "DDP")
    if settings.get(name) == "1" and sharded:
        note = (
            f"one queue for all kernels: collectives of {' and '.join(sharded)} wait behind compute that was launched"
            " before them; tensor parallelism alone wants it"
        )
        yield Setting(((name, "1"),), note, COSTS, f"{remedy(name)}, where tensor parallelism does not need it")


def _dumps(settings: Mapping[str, str]) -> Iterator[Setting]:
    for name in ("TORCH_FR_BUFFER_SIZE", "TORCH_NCCL_TRACE_BUFFER_SIZE"):
        if settings.get(name) == "0" and is_on(settings.get("TORCH_NCCL_DUMP_ON_TIMEOUT")):
            note = "a dump is wanted of a Flight Recorder that is off: it will be empty"
            yield _pair(settings, name, "TORCH_NCCL_DUMP_ON_TIMEOUT", note, CONTRADICTS)


def _threads(settings: Mapping[str, str], job: Job) -> Iterator[Setting]:
    """More threads than cores: Gloo's threads, and those that launch kernels, wait for a core."""
    name = "OMP_NUM_THREADS"
    threads = _whole(settings, name)
    if threads is None or threads < 2:
        return
    ranks = _whole(settings, "LOCAL_WORLD_SIZE") or job.local_ranks or 1
    if job.shared_cpus is not None and threads * ranks > job.shared_cpus:
        note = f"{counted(ranks, 'rank')} with {counted(threads, 'thread')} each on {job.shared_cpus} cores: {_WAITS}"
        yield Setting(((name, settings[name]),), note, COSTS, f"{name}={max(job.shared_cpus // ranks, 1)}")
    elif job.cpus is not None and threads > job.cpus:
        note = f"{threads} threads a rank that may run on {job.cpus} cores: {_WAITS}"
        yield Setting(((name, settings[name]),), note, COSTS, f"{name}={max(job.cpus, 1)}")


def _rendezvous(settings: Mapping[str, str]) -> Iterator[Setting]:
    address = settings.get("MASTER_ADDR", "")
    world, here = _whole(settings, "WORLD_SIZE"), _whole(settings, "LOCAL_WORLD_SIZE")
    if address.startswith(_LOOPBACK) and world is not None and here is not None and world > here:
        note = f"{world} ranks, {here} of them on this host: the others cannot reach the loopback interface"
        yield _pair(settings, "MASTER_ADDR", "WORLD_SIZE", note, BREAKS, "MASTER_ADDR=an address that all hosts reach")


def _whole(settings: Mapping[str, str], name: str) -> int | None:
    text = settings.get(name, "").strip()
    return int(text) if text.isdecimal() and len(text) < 10 else None
