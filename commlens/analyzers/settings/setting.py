"""What is said of a setting, and of the job that it is for: the words that findings and `commlens doctor` share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from commlens.analyzers.rank_info import entries, machine_of

# What a setting does. All but NOTED are worth a warning.
BREAKS: Final = "breaks"  # communication does not start, or not between these ranks
CONTRADICTS: Final = "contradicts"  # of two settings one has no effect, or both fight over a thing
COSTS: Final = "costs"  # communication works and is slower
NOTED: Final = "noted"  # good to know; nothing to change
KINDS: Final = (BREAKS, CONTRADICTS, COSTS, NOTED)

OFF: Final = ("0", "", "false", "no")  # of a variable that switches something off

# Variables that keep traffic off a fast way, and the value that lets it go there.
_LETS: Final = {
    "CUDA_LAUNCH_BLOCKING": "0",
    "NCCL_IB_DISABLE": "0",
    "NCCL_NET": "IB",
    "NCCL_P2P_DISABLE": "0",
    "NCCL_SHM_DISABLE": "0",
    "TORCH_NCCL_ASYNC_ERROR_HANDLING": "3",
    "TORCH_NCCL_BLOCKING_WAIT": "0",
}


@dataclass(frozen=True)
class Setting:
    """One setting worth knowing about, or several that belong together.

    Attributes:
        given: names and values, the one to change first.
        note: what it does to communication, and when that matters.
        kind: one of `KINDS`.
        next: what to do; "" where there is nothing to do.
    """

    given: tuple[tuple[str, str], ...]
    note: str
    kind: str = COSTS
    next: str = ""

    @property
    def words(self) -> str:
        """As one writes them: "NCCL_NET=IB, NCCL_IB_DISABLE=1"."""
        return ", ".join(f"{name}={value}" for name, value in self.given)

    @property
    def is_warning(self) -> bool:
        """Whether somebody should look at it."""
        return self.kind != NOTED


@dataclass(frozen=True)
class Job:
    """What is known of the job that settings are for; None where it is not known.

    Attributes:
        backends: "gloo", "nccl": those that it uses, or that there are to use.
        models: kinds of its models, as rank.json has them: "DDP", "FSDP2".
        hosts: how many.
        local_ranks: on one host, at most.
        cpus: cores that a rank may run on.
        shared_cpus: cores that all ranks of a host share; None where each may be bound to some of its own.
        rdma: whether there are InfiniBand or RoCE ports.
    """

    backends: frozenset[str] | None = None
    models: frozenset[str] | None = None
    hosts: int | None = None
    local_ranks: int | None = None
    cpus: int | None = None
    shared_cpus: int | None = None
    rdma: bool | None = None

    def may_use(self, backend: str) -> bool:
        """Whether it uses a backend, as far as is known."""
        return self.backends is None or backend in self.backends


UNKNOWN_JOB: Final = Job()


def is_on(value: str | None) -> bool:
    """Whether a variable switches its thing on."""
    return value is not None and value.lower() not in OFF


def remedy(name: str) -> str:
    """What to set instead of a value that keeps traffic off a fast way."""
    return f"{name}={_LETS[name]}, or unset it" if name in _LETS else f"unset {name}"


def lets(name: str) -> str:
    """The value of a variable that lets traffic take the fast way."""
    return _LETS[name]


def job_of(infos: Iterable[Mapping[str, Any]]) -> Job:
    """The job, as rank.json of its ranks has it."""
    told = [info for info in infos if info]
    machines: dict[str, int] = {}
    for info in told:
        machines[machine_of(info)] = machines.get(machine_of(info), 0) + 1
    links = [link for info in told for link in entries(info, "links")]
    cpus = [info["cpus"] for info in told if type(info.get("cpus")) is int]
    backends = frozenset(word for info in told for word in _backends(info))
    return Job(
        backends=backends or None,
        models=frozenset(str(model.get("kind")) for info in told for model in entries(info, "models")),
        hosts=len(machines) or None,
        local_ranks=max(machines.values(), default=None),
        cpus=min(cpus, default=None),
        shared_cpus=min(cpus, default=None) if cpus and all(_unbound(info) for info in told) else None,
        rdma=any(link.get("kind") in ("infiniband", "roce") for link in links) if links else None,
    )


def _unbound(info: Mapping[str, Any]) -> bool:
    """Whether a rank may run on every core of its host."""
    return info.get("cpus") is not None and info["cpus"] == info.get("cores")


def _backends(info: Mapping[str, Any]) -> list[str]:
    """Of its groups: "cpu:gloo,cuda:nccl" is both."""
    groups = [str(group.get("backend") or "") for group in entries(info, "groups")]
    text = " ".join([*groups, str(info.get("backend") or "")])
    return [word for word in ("gloo", "nccl") if word in text]
