"""What `commlens calibrate` measures: the operations of a run, each in the groups that used it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from commlens.errors import UsageError
from commlens.trace.calibration import calibrated_as

if TYPE_CHECKING:
    from commlens.analyzers.ranks import RankFacts
    from commlens.trace import Run

MEASURED = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all", "broadcast", "send")
_SMALLEST, _AT_LEAST, _GROWTH = 256, 16 * 2**20, 4  # bytes, bytes, factor
TOOK_PART = "took-part"  # a file beside the plan: ranks of this host measured, wherever rank 0 is
_MOST_ALIKE = 4  # groups of one operation, size and scope; more would only take time from each other


@dataclass(frozen=True)
class Measurement:
    """One operation to measure in one group.

    Attributes:
        op: one of MEASURED.
        ranks: global ranks, ascending; two of them for "send".
        largest_bytes: largest message the run sent so.
    """

    op: str
    ranks: tuple[int, ...]
    largest_bytes: int

    def sizes(self) -> list[int]:
        """Message sizes to try, bytes: powers of four, then the run's largest, or 16 MiB where that is more."""
        most = max(self.largest_bytes, _AT_LEAST)
        steps = [_SMALLEST]
        while steps[-1] * _GROWTH < most:
            steps.append(steps[-1] * _GROWTH)
        return [*steps, most]


@dataclass(frozen=True)
class Plan:
    """What the job is told.

    Attributes:
        source: the command, for the calibration to name.
        world_size: ranks the job must have.
        backend: the run's.
        seconds: time for all measurements together.
        result: where rank 0 writes the calibration.
        measurements: in the order to make them.
    """

    source: str
    world_size: int
    backend: str
    seconds: float
    result: str
    measurements: tuple[Measurement, ...]

    def write(self, path: Path) -> None:
        """Write it for the job to read."""
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")


def read_plan(path: Path) -> Plan:
    """A plan as `Plan.write` wrote it."""
    content = json.loads(path.read_text(encoding="utf-8"))
    each = [Measurement(m["op"], tuple(m["ranks"]), m["largest_bytes"]) for m in content.pop("measurements")]
    return Plan(**content, measurements=tuple(each))


def measurements_for(run: Run) -> tuple[Measurement, ...]:
    """What `run` used, at most a few groups of a kind.

    Raises:
        UsageError: it used nothing that can be measured.
    """
    from commlens.analyzers.across.communicators import find_communicators, rows_of
    from commlens.analyzers.ranks import rank_facts

    ranks = [rank_facts(run.ranks[number]) for number in sorted(run.ranks)]
    largest: Counter[tuple[str, tuple[int, ...]]] = Counter()
    scopes: dict[tuple[int, ...], str | None] = {}
    for group in find_communicators(ranks):
        members = tuple(sorted(group.members))
        scopes[members] = group.scope
        for position in group.present:
            for op, size in _largest(ranks[position], rows_of(ranks[position], group).tolist()):
                largest[op, members] = max(largest[op, members], size)
    used = (Measurement(*key, size) for key, size in sorted(largest.items()))
    wanted = [each for each in used if each.op in MEASURED and len(each.ranks) > 1]
    if not wanted:
        raise UsageError(f"{run.path} has no operation between ranks that can be calibrated; give another run")
    return tuple(_few_alike(wanted, scopes))


def _largest(facts: RankFacts, rows: list[int]) -> Iterator[tuple[str, int]]:
    """The largest message of each operation in rows of a rank."""
    op, sizes = facts.columns.words["op"], facts.columns.collectives["bytes"]
    for code in set(op.codes[rows].tolist()):
        if 0 <= code < len(op.words):
            yield calibrated_as(op.words[code]), int(sizes[rows][op.codes[rows] == code].max())


def _few_alike(wanted: list[Measurement], scopes: dict[tuple[int, ...], str | None]) -> Iterator[Measurement]:
    seen: Counter[tuple[str, int, str | None]] = Counter()
    for each in wanted:
        kind = each.op, len(each.ranks), scopes[each.ranks]
        seen[kind] += 1
        if seen[kind] <= _MOST_ALIKE:
            yield each


def ranks_label(ranks: tuple[int, ...]) -> str:
    """Ranks as text: "0-3", "0,2,4"."""
    if len(ranks) > 2 and ranks[-1] - ranks[0] == len(ranks) - 1:
        return f"{ranks[0]}-{ranks[-1]}"
    return ",".join(str(rank) for rank in ranks)
