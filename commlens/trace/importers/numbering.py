"""Which rank each imported file is of, and which files belong together."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from commlens.errors import UsageError
from commlens.trace.importers.rank_pattern import rank_pattern

# What people and tools put before a rank's number in a file's name, the surest first.
_IN_NAMES: Final = (
    r"rank[-_.=]?(\d+)",
    r"(?:^|[^a-z])r(\d+)(?!\d*[a-z])",
    r"(?:gpu|proc|worker)[-_.]?(\d+)",
    r"[-_.](\d+)(?=\.)",
    r"(\d+)$",
)
_NUMBER: Final = re.compile(r"\d{1,7}")  # as large as a rank can be


@dataclass
class Part:
    """What is known of one imported rank besides its tables, which are in `folder`.

    Attributes:
        source: the file it comes from.
        folder: where its tables are.
        rank, world_size: as the file says.
        info, run, notes: as in `ImportedRank`.
        start_ns: its first time, 0 where it has none.
        rows: how many rows it has.
    """

    source: Path
    folder: Path
    rank: int | None
    world_size: int | None
    info: dict[str, Any] = field(default_factory=dict)
    run: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    start_ns: int = 0
    rows: int = 0


def numbered(parts: Sequence[Part], rank_regex: str | None) -> tuple[dict[int, Part], list[str]]:
    """The rank of each part, of one job only, and notes on what was left out.

    A rank is what the file says, else what `rank_regex` finds in its name, else a number in the name that
    tells the files apart; a single file without any is taken for rank 0.

    Raises:
        UsageError: The ranks cannot be told, or `rank_regex` is no pattern with a group.
    """
    notes: list[str] = []
    own = _one_job(parts, notes)
    _number_the_rest(own, rank_regex, notes)
    ranks: defaultdict[int, list[Part]] = defaultdict(list)
    for part in own:
        ranks[part.rank or 0].append(part)
    return {rank: _newest(rank, found, notes) for rank, found in sorted(ranks.items())}, notes


def _one_job(parts: Sequence[Part], notes: list[str]) -> list[Part]:
    """The parts of the job with the most of them, by world size."""
    sizes = Counter(part.world_size for part in parts if part.world_size is not None)
    if len(sizes) <= 1:
        return list(parts)
    size = max(sizes, key=lambda each: (sizes[each], max(p.start_ns for p in parts if p.world_size == each)))
    for part in parts:
        if part.world_size not in (size, None):
            notes.append(
                f"{part.source.name} is of another job ({part.world_size} ranks, not {size}) and was left out;"
                " give it by itself"
            )
    return [part for part in parts if part.world_size in (size, None)]


def _number_the_rest(parts: Sequence[Part], rank_regex: str | None, notes: list[str]) -> None:
    unknown = [part for part in parts if part.rank is None]
    if not unknown:
        return
    numbers = _by_pattern(unknown, rank_regex) if rank_regex else _by_name(unknown)
    if numbers is None and len(parts) == 1:
        notes.append(f"{unknown[0].source.name} does not say which rank it is; it is taken for rank 0")
        numbers = [0]
    if numbers is None and len({part.source for part in unknown}) == 1:
        notes.append(f"{unknown[0].source.name} does not number its {len(unknown)} ranks; their order was taken")
        numbers = list(range(len(unknown)))
    if numbers is None:
        few = ", ".join(part.source.name for part in unknown[:2])
        raise UsageError(
            f"{len(unknown)} files do not say which rank they are ({few}, ...); give the number's place in their"
            " names, such as --rank-regex 'rank(\\d+)'"
        )
    for part, number in zip(unknown, numbers, strict=True):
        part.rank = number


def _by_pattern(parts: Sequence[Part], rank_regex: str) -> list[int]:
    pattern, found = rank_pattern(rank_regex), []
    for part in parts:
        match = pattern.search(part.source.name)
        if match is None or not _NUMBER.fullmatch(match[1] or ""):
            raise UsageError(f"--rank-regex '{rank_regex}' finds no number in {part.source.name}")
        found.append(int(match[1]))
    return found


def _by_name(parts: Sequence[Part]) -> list[int] | None:
    """The first of the usual patterns that gives each file a number of its own, small enough for a rank."""
    for pattern in _IN_NAMES:
        matches = [re.findall(pattern, part.source.name.lower()) for part in parts]
        numbers = [int(found[0]) for found in matches if found and len(found[0]) < 8]
        if len(numbers) == len(parts) and len(set(numbers)) == len(parts):
            return numbers
    return None


def _newest(rank: int, parts: Sequence[Part], notes: list[str]) -> Part:
    """Of several files of a rank (a profiler writes one each time its schedule comes round) the last."""
    kept = max(parts, key=lambda part: (part.start_ns, part.rows, part.source.name))
    if len(parts) > 1:
        others = ", ".join(part.source.name for part in parts if part is not kept)
        notes.append(f"rank {rank} is there {len(parts)} times; the newest, {kept.source.name}, was used, not {others}")
    return kept
