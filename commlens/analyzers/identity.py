"""Who a rank is: its host, its clock, its groups, how its recording ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from commlens.trace import Rank


_GROUPS: dict[tuple[int, ...], tuple[int, ...]] = {}


def shared(members: tuple[int, ...]) -> tuple[int, ...]:
    """The same members as one tuple: thousands of ranks name the same groups of thousands."""
    return _GROUPS.setdefault(members, members)


@dataclass(frozen=True)
class Identity:
    """What rank.json says of a rank.

    Attributes:
        rank: global rank.
        host: name of its host, None where not known.
        machine: what tells its host from others: the boot id, else the name; "" where neither is known.
        wall_offset_ns: wall clock minus monotonic clock as the rank read them once, None where not known.
        world_size: ranks of the job as this rank's file says, None where it does not.
        members: global ranks of each of its groups, by name; empty where not known.
        ended: how the recording ended, None where it broke off.
        timed: its times say when things happened; where False only durations are known.
        dumped: the rank was read from a dump of the Flight Recorder, which says what had not ended.
        imported: the rank was read from another tool's file, which says nothing of an end.
    """

    rank: int
    host: str | None
    machine: str
    wall_offset_ns: int | None
    world_size: int | None
    members: Mapping[str, tuple[int, ...]]
    ended: str | None
    timed: bool
    dumped: bool
    imported: bool

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, members={name: shared(each) for name, each in state["members"].items()})


def identify(rank: Rank) -> Identity:
    """Read a rank's description; what is absent or of another shape is not known."""
    info = rank.info
    offset = (info.get("clock") or {}).get("wall_offset_ns")
    return Identity(
        rank=rank.rank,
        host=info.get("host"),
        machine=str(info.get("boot_id") or info.get("host") or ""),
        wall_offset_ns=offset if isinstance(offset, int) else None,
        world_size=info["world_size"] if isinstance(info.get("world_size"), int) else None,
        members={str(g["name"]): _ranks(g) for g in info.get("groups") or [] if isinstance(g, dict) and "name" in g},
        ended=(info.get("end") or {}).get("how"),
        timed=(info.get("clock") or {}).get("comparable") is not False,
        dumped=info.get("imported") == "flight_recorder",
        imported=bool(info.get("imported")),
    )


def _ranks(group: Mapping[str, Any]) -> tuple[int, ...]:
    return shared(tuple(each for each in group.get("ranks") or () if isinstance(each, int)))
