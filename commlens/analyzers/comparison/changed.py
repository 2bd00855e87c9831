"""What differs between two jobs beside their numbers: the first suspects."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from commlens.analyzers.abstentions import name_ranks
from commlens.analyzers.comparison.side import Side

JOB, SOFTWARE, MACHINES, MODEL, GROUPS, ENVIRONMENT = KINDS = (
    "job",
    "software",
    "machines",
    "model",
    "groups",
    "environment",
)
_NOT_SET: Final = "not set"
_OF_MODELS = ("kind", "name", "bucket_bytes", "autocast")
# They differ from rank to rank or from launch to launch, and change nothing.
_OF_LAUNCH = frozenset(
    {
        "LOCAL_RANK",
        "MASTER_ADDR",
        "MASTER_PORT",
        "RANK",
        "TORCHELASTIC_ERROR_FILE",
        "TORCHELASTIC_RUN_ID",
        "WORLD_SIZE",
    }
)


@dataclass(frozen=True)
class Changed:
    """A setting that is not the same in both runs.

    Attributes:
        kind: one of `KINDS`.
        name: the variable, the flag, ...
        before: in the first run, in words; None where it is not known.
        after: in the second.
    """

    kind: str
    name: str
    before: str | None
    after: str | None


def find_changed(before: Side, after: Side) -> tuple[Changed, ...]:
    """Settings that differ, those of the job first. Of reports alone only what these say."""
    sides = before, after
    found = [*_pairs(JOB, sides, _job), *_pairs(SOFTWARE, sides, _software), *_pairs(MACHINES, sides, _machines)]
    if before.infos and after.infos:
        found += [*_pairs(MODEL, sides, _models), *_pairs(GROUPS, sides, _groups)]
        found += _pairs(ENVIRONMENT, sides, _environment)
    return tuple(found)


def _pairs(kind: str, sides: Sequence[Side], told: Callable[[Side], Mapping[str, str | None]]) -> Iterator[Changed]:
    one, other = (told(side) for side in sides)
    missing = _NOT_SET if kind == ENVIRONMENT else None
    for name in {**one, **other}:
        pair = one.get(name, missing), other.get(name, missing)
        if pair[0] != pair[1]:
            yield Changed(kind, name, *pair)


def _job(side: Side) -> dict[str, str | None]:
    run = side.report.run
    return {
        "command": shlex.join(run.command) or None,
        "world size": str(run.world_size),
        "fix": ", ".join(run.fix) or "none",
        "read from": run.imported or "a recording",
    }


def _software(side: Side) -> dict[str, str | None]:
    run = side.report.run
    return {
        "torch": run.torch,
        "backend": run.backend,
        "cuda": _of_ranks(side, lambda info: info.get("cuda")),
        "nccl": _of_ranks(side, lambda info: info.get("nccl")),
        "python": _of_ranks(side, lambda info: info.get("python")),
        "recorder's hooks": _of_ranks(side, lambda info: _table(info, "hooks").get("recorder")),
    }


def _machines(side: Side) -> dict[str, str | None]:
    return {
        "hosts": ", ".join(side.report.run.hosts) or None,
        "ranks on each host": _ranks_a_host(side),
        "cores": _of_ranks(side, lambda info: info.get("cpus")),
        "gpu": _of_ranks(side, lambda info: info.get("gpu")),
        "platform": _of_ranks(side, lambda info: info.get("platform")),
        "device": _of_ranks(side, lambda info: info.get("device")),
        "interfaces": _of_ranks(side, _interfaces),
    }


def _ranks_a_host(side: Side) -> str | None:
    hosts = [line.host for line in side.report.ranks]
    return None if None in hosts else ", ".join(str(hosts.count(host)) for host in dict.fromkeys(hosts)) or None


def _interfaces(info: Mapping[str, Any]) -> str | None:
    """Those that are up, with what bytes may go through them."""
    every = [each for each in _rows(info, "interfaces") if each.get("state") != "down"]
    parts = [f"{each.get('name')} ({each.get('speed_mbit_s') or '?'} Mbit/s, mtu {each.get('mtu')})" for each in every]
    return ", ".join(parts) or None


def _models(side: Side) -> dict[str, str | None]:
    """Kind, buckets and flags of each model."""
    models = {rank: _rows(info, "models") for rank, info in side.infos.items()}
    count = max(map(len, models.values()), default=0)
    found: dict[str, str | None] = {"models": str(count)}
    for number in range(count):
        own = {rank: each[number] for rank, each in models.items() if len(each) > number}
        told = {
            rank: {name: each.get(name) for name in _OF_MODELS} | dict(_table(each, "flags"))
            for rank, each in own.items()
        }
        for name in dict.fromkeys(name for each in told.values() for name in each):
            place = name if count == 1 else f"model {number}: {name}"
            found[place] = _spoken({rank: each.get(name) for rank, each in told.items()})
    return found


def _groups(side: Side) -> dict[str, str | None]:
    """Members of each process group, by torch's name."""
    members: dict[str, set[int]] = {}
    for info in side.infos.values():
        for group in _rows(info, "groups"):
            members.setdefault(str(group.get("name")), set()).update(
                rank for rank in group.get("ranks") or () if isinstance(rank, int)
            )
    return {f"group {name}": name_ranks(ranks) if ranks else None for name, ranks in members.items()}


def _environment(side: Side) -> dict[str, str | None]:
    own = {rank: _table(info, "environment") for rank, info in side.infos.items()}
    names = sorted({name for each in own.values() for name in each} - _OF_LAUNCH)
    return {name: _spoken({rank: each.get(name, _NOT_SET) for rank, each in own.items()}) for name in names}


def _of_ranks(side: Side, get: Callable[[Mapping[str, Any]], Any]) -> str | None:
    return _spoken({rank: get(info) for rank, info in side.infos.items()})


def _table(info: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Of another shape, as in a file of another version, it is not known."""
    found = info.get(name)
    return found if isinstance(found, dict) else {}


def _rows(info: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    found = info.get(name)
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def _spoken(values: Mapping[int, Any]) -> str | None:
    """What all ranks say; where they differ, who says what; None where nobody says anything."""
    said: dict[str, list[int]] = {}
    for rank, value in values.items():
        if value is not None:
            said.setdefault(_word(value), []).append(rank)
    if len(said) < 2:
        return next(iter(said), None)
    return "; ".join(
        f"{value} ({name_ranks(ranks)})" for value, ranks in sorted(said.items(), key=lambda each: each[1])
    )


def _word(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
