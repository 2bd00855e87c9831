"""The report: everything known about a run, as plain frozen data.

`Report.to_dict` is the contract of `commlens report --format json`; the field names of the
dataclasses are its keys. A part that is not known is None or empty, and an abstention says why.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from commlens.analyzers.across.progress import Progress
from commlens.analyzers.across.rank_lines import RankLine
from commlens.analyzers.across.transfers import CostLine
from commlens.analyzers.aggregated.lines import Aggregates
from commlens.analyzers.by_step import StepLine
from commlens.analyzers.collective_line import CollectiveLine
from commlens.analyzers.contention import Contention
from commlens.analyzers.counted.gpus import GpuLine
from commlens.analyzers.counted.link_lines import LinkLine
from commlens.analyzers.coverage import Coverage
from commlens.analyzers.lane_lines import LaneLine
from commlens.analyzers.nccl_lines import NcclReplays, NcclWaits
from commlens.analyzers.overhead import Overhead
from commlens.analyzers.overlap_lines import OverlapLine
from commlens.analyzers.path_lines import CriticalPath
from commlens.analyzers.sizes import SizeBucket
from commlens.analyzers.summary import TimeBudget

if TYPE_CHECKING:
    from commlens.analyzers.track_record import Track

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class StepFacts:
    """Steps of the run: whole ones seen on any rank, analysed on every rank that has some, and how.

    `sampled_out` of them were left out on purpose; `sampled_steps` is what COMMLENS_STEPS said.
    """

    count: int
    analyzed: int
    how: str
    sampled_out: int = 0
    sampled_steps: str | None = None


@dataclass(frozen=True)
class RunFacts:
    """Which run this is.

    `fix` are the changes that COMMLENS_FIX applied on every recorded rank, `sampled_ranks` is what COMMLENS_RANKS said.
    Ranks that it left out on purpose are not among `ranks_missing`.
    """

    path: str
    run_id: str
    command: tuple[str, ...]
    world_size: int
    ranks_present: tuple[int, ...]
    ranks_missing: tuple[int, ...]
    hosts: tuple[str, ...]
    backend: str | None
    torch: str | None
    sources: tuple[str, ...]
    imported: str | None
    fix: tuple[str, ...]
    steps: StepFacts
    ranks_sampled_out: tuple[int, ...] = ()
    sampled_ranks: str | None = None


@dataclass(frozen=True)
class Evidence:
    """A number a finding rests on."""

    name: str
    value: float
    unit: str


@dataclass(frozen=True)
class Predicted:
    """What a change would gain, ms per step, with an interval."""

    step_ms: float
    gain_ms: float
    low_ms: float
    high_ms: float


@dataclass(frozen=True)
class Action:
    """What to change; `fix` is machine-usable, for example "ddp.bucket_cap_mb=50"."""

    text: str
    change: str
    fix: str | None
    risk: str
    min_torch: str | None
    predicted: Predicted | None
    verify: str | None


@dataclass(frozen=True)
class Finding:
    """A cause of lost time. `layer` is strategy, ccl, network or host."""

    id: str
    title: str
    layer: str
    severity: str
    confidence: str
    ranks: tuple[int, ...]
    group: str | None
    steps: tuple[int, ...]
    evidence: tuple[Evidence, ...]
    ceiling_ms: float | None
    actions: tuple[Action, ...]
    could_be_wrong_if: tuple[str, ...]


@dataclass(frozen=True)
class Considered:
    """A technique of the field's surveys, and what became of it for this job.

    Attributes:
        row: its number in the catalogue.
        id: for people and files.
        technique: as the field says.
        layer: strategy, ccl, network or host.
        risk: one of `trace.change_kinds.RISKS`.
        verdict: "advised", "rejected", "not known" or "explained".
        reason: the symptom, or the number that rejected it, or what is not known.
        change: exactly what to write.
        set: the changes that were simulated, with what loses less below what loses more.
        fix: what COMMLENS_FIX could apply, None where it cannot.
        predicted: what it would gain, None where it was not simulated.
        ceiling_ms: the most it could gain, None where it is not known.
        price: what it costs.
        not_for: where not to use it.
    """

    row: str
    id: str
    technique: str
    layer: str
    risk: str
    verdict: str
    reason: str
    change: str
    set: tuple[str, ...]
    fix: str | None
    predicted: Predicted | None
    ceiling_ms: float | None
    price: str
    not_for: str


@dataclass(frozen=True)
class Abstention:
    """A question that was not answered: which, why not, and what it would need."""

    analysis: str
    reason: str
    needs: str


_PARTS: Final = (
    *("run", "coverage", "time_budget", "by_step", "overlaps", "collectives", "sizes", "cost_model", "ranks"),
    *("critical_path", "device_lanes", "contention", "progress", "links", "gpus", "nccl_waits", "nccl_replays"),
    *("overhead", "findings", "abstentions", "considered", "aggregates", "track_record"),
)


@dataclass(frozen=True)
class Report:
    """Facts, findings and abstentions about one run."""

    run: RunFacts
    coverage: Coverage
    time_budget: TimeBudget
    collectives: tuple[CollectiveLine, ...]
    sizes: tuple[SizeBucket, ...]
    cost_model: tuple[CostLine, ...]
    ranks: tuple[RankLine, ...]
    critical_path: CriticalPath | None
    progress: tuple[Progress, ...]
    device_lanes: tuple[LaneLine, ...]
    contention: tuple[Contention, ...]
    overhead: Overhead
    findings: tuple[Finding, ...]
    abstentions: tuple[Abstention, ...]
    considered: tuple[Considered, ...] = ()
    track_record: tuple[Track, ...] = ()
    links: tuple[LinkLine, ...] = ()
    gpus: tuple[GpuLine, ...] = ()
    nccl_waits: tuple[NcclWaits, ...] = ()
    nccl_replays: tuple[NcclReplays, ...] = ()
    by_step: tuple[StepLine, ...] = ()
    overlaps: tuple[OverlapLine, ...] = ()
    aggregates: Aggregates | None = None

    def _repr_html_(self) -> str:
        """What notebooks show: verdict, findings and tables."""
        # By name: nothing here depends on pages, but whoever looks at a report has them.
        return str(importlib.import_module("commlens.ui.notebook").fragment(self))

    def to_dict(self) -> dict[str, Any]:
        """The JSON contract: dicts, lists, strings, finite numbers and None."""
        return dict(self._parts())

    def to_json(self) -> Iterator[str]:
        """The same as JSON text, indented by two, in small pieces: that of thousands of ranks takes tens of MB."""
        encoder = json.JSONEncoder(indent=2, allow_nan=False)
        before = "{"
        for name, part in self._parts():
            yield f'{before}\n  "{name}": '
            yield from (piece.replace("\n", "\n  ") for piece in encoder.iterencode(part))
            before = ","
        yield "\n}\n"

    def _parts(self) -> Iterator[tuple[str, Any]]:
        """One part of the contract after another."""
        from commlens._version import __version__

        yield "schema_version", SCHEMA_VERSION
        yield "producer", f"commlens {__version__}"
        for name in _PARTS:
            value = getattr(self, name)
            if isinstance(value, tuple):
                yield name, [_plain(asdict(line)) for line in value]
            else:
                yield name, None if value is None else _plain(asdict(value))


def _plain(value: Any) -> Any:
    """Tuples as lists, as JSON has them."""
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(each) for each in value]
    return value
