"""Facts of one machine, as `commlens doctor` collects them, and what follows from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from commlens.analyzers.settings.setting import Job
from commlens.trace.schema import OPS, POINT_TO_POINT

SHOULD_SEE: Final = tuple(op for op in OPS if op not in POINT_TO_POINT)
_FIXED_PHASES: Final = ("forward", "backward", "optimizer")


@dataclass(frozen=True)
class Torch:
    """What torch says of itself.

    Attributes:
        error: why it cannot be imported, "" where it can.
        distributed: it was built with torch.distributed.
        backends: that it was built with.
        gpus: CUDA devices that it sees.
        nccl: version, None where it has none.
        other_plugin: NCCL_PROFILER_PLUGIN, where the user set it: then ours is not loaded.
    """

    error: str = ""
    distributed: bool = True
    backends: tuple[str, ...] = ()
    gpus: int = 0
    nccl: str | None = None
    other_plugin: str = ""

    @property
    def usable(self) -> bool:
        """Whether a job can be tried."""
        return not self.error and self.distributed and "gloo" in self.backends


@dataclass(frozen=True)
class Trial:
    """What became of a job of one rank that was recorded.

    Attributes:
        error: why the job did not end as it should, or was not recorded; "" where it was.
        attached: there is a recording.
        seen: operations of which there are rows.
        endless: operations whose end was not seen.
        phases: of a step that were seen.
        hooks: what the recorder says of its hooks.
        entering_us: microseconds into Python and back, a collective; None where not measured.
    """

    error: str = ""
    attached: bool = False
    seen: frozenset[str] = frozenset()
    endless: tuple[str, ...] = ()
    phases: Mapping[str, bool] = field(default_factory=dict)
    hooks: Mapping[str, str] = field(default_factory=dict)
    entering_us: float | None = None

    @property
    def missed(self) -> tuple[str, ...]:
        """Operations that the job issued and the recorder did not see."""
        return tuple(op for op in SHOULD_SEE if op not in self.seen)


@dataclass(frozen=True)
class Built:
    """A compiled part.

    Attributes:
        name: of the part.
        path: the library, "" where it is not built.
        compiler: that made it, or would; "" where it is not known.
        obstacle: why it cannot be built, "" where it can.
    """

    name: str
    path: str = ""
    compiler: str = ""
    obstacle: str = ""


@dataclass(frozen=True)
class Network:
    """Interfaces and counters.

    Attributes:
        interfaces: as in rank.json.
        told: each device that can be read, as in rank.json, with its counters.
        refused: what cannot be read, and why.
        address: of this host that its name resolves to, "" where it resolves to none of this host's.
    """

    interfaces: tuple[Mapping[str, Any], ...]
    told: tuple[tuple[Mapping[str, Any], tuple[str, ...]], ...]
    refused: tuple[tuple[str, str], ...]
    address: str

    @property
    def rdma(self) -> tuple[str, ...]:
        """InfiniBand and RoCE ports that are up."""
        return tuple(str(link["name"]) for link, _ in self.told if link["kind"] in ("infiniband", "roce"))


def phases_of(seen: set[str]) -> dict[str, bool]:
    """Which phases of a step were seen."""
    return {phase: phase in seen for phase in _FIXED_PHASES}


def job_here(torch: Torch, network: Network, cores: int) -> Job:
    """What is known of any job on this machine."""
    return Job(
        backends=frozenset(torch.backends) if torch.backends else None,
        cpus=cores,
        shared_cpus=cores,  # a launcher that is started here leaves its ranks the same
        rdma=bool(network.rdma),
    )
