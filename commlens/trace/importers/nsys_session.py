"""What an Nsight Systems export tells of its session: host, clock, devices and the job's environment."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from commlens.trace.importers.nsys_tables import LATEST_NS, Tables

# Variables that launchers give to each process: its rank, the number of ranks.
_RANK_VARIABLES: Final = (
    ("RANK", "WORLD_SIZE"),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("SLURM_PROCID", "SLURM_NTASKS"),
)
_LAUNCHED: Final = re.compile(r"PROCESS_\d+:ENVIRONMENT_VARIABLE")
_VARIABLE: Final = re.compile(r'(?:^|;)([A-Z_]+)="?(\d{1,7})"?(?=;|$)')


@dataclass(frozen=True)
class Session:
    """A profiling session.

    Attributes:
        host: name of its host, else what tells the session from others, None where neither is known.
        start_ns: UTC of time 0 in the file, ns; 0 where the times are UTC already, None where not known.
        product: name and version of what exported the file, None where not known.
        gpus: name of each device, by its number.
        rank: the rank that the launcher gave to the process that was profiled, None where not known.
        world_size: ranks of the job, None where not known.
    """

    host: str | None
    start_ns: int | None
    product: str | None
    gpus: Mapping[int, str]
    rank: int | None
    world_size: int | None


def read_session(tables: Tables) -> Session:
    """What the export tells of the session."""
    name = tables.value("TARGET_INFO_SYSTEM_ENV", "Hostname")
    unique = tables.value("META_DATA_CAPTURE", "PROFILING_SESSION_UUID")
    parts = [tables.value("META_DATA_EXPORT", f"EXPORT_PRODUCT_{part}") for part in ("NAME", "VERSION")]
    rank, world_size = _place(_environment(tables))
    return Session(
        host=name or (f"session {unique}" if unique else None),
        start_ns=_start(tables),
        product=" ".join(part for part in parts if part) or None,
        gpus=_gpus(tables),
        rank=rank,
        world_size=world_size,
    )


def _start(tables: Tables) -> int | None:
    if tables.value("META_DATA_EXPORT", "EXPORT_PARAM_TIME_NORMALIZE") == "true":
        return 0
    starts = tables.numbers("TARGET_INFO_SESSION_START_TIME", ["utcEpochNs"])["utcEpochNs"]
    return int(starts[0]) if starts.size and 0 < starts[0] < LATEST_NS else None


def _gpus(tables: Tables) -> dict[int, str]:
    """By CUDA's number of the device where the file has it: it differs from the system's under CUDA_VISIBLE_DEVICES."""
    rows = tables.rows("TARGET_INFO_GPU", ("cuDevice", "id", "name"))
    found = [(cuda if cuda is not None else number, name) for cuda, number, name in rows]
    return {number: name for number, name in found if isinstance(number, int) and isinstance(name, str)}


def _environment(tables: Tables) -> dict[str, int]:
    """Variables of the process that was launched which are numbers, else of the profiler itself."""
    rows = tables.rows("META_DATA_CAPTURE", ("name", "value"))
    texts = [str(value) for name, value in rows if _LAUNCHED.fullmatch(str(name))]
    texts = texts or [tables.value("TARGET_INFO_SYSTEM_ENV", "DeviceEnvironment") or ""]
    return {name: int(value) for text in texts for name, value in _VARIABLE.findall(text)}


def _place(environment: Mapping[str, int]) -> tuple[int | None, int | None]:
    """Rank and number of ranks."""
    for rank, size in _RANK_VARIABLES:
        if rank in environment:
            return environment[rank], environment.get(size)
    return None, None
