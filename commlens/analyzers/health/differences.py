"""What differs between the ranks of a job though it should not: settings, versions, interfaces, devices, hooks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from commlens.analyzers.rank_info import Info, entries, machine_of, words
from commlens.analyzers.settings.interfaces import GLOO_VARIABLE, INSIDE, NCCL_VARIABLE

NOT_SET: Final = "not set"

# Each rank has its own.
_OWN: Final = ("RANK", "LOCAL_RANK", "GROUP_RANK", "ROLE_RANK", "TORCHELASTIC_ERROR_FILE")
# Each host may have its own: it names what is there, or how many ranks are.
_OF_HOST: Final = (
    GLOO_VARIABLE,
    NCCL_VARIABLE,
    "LOCAL_WORLD_SIZE",
    "MASTER_ADDR",
    "NCCL_IB_HCA",
    "NCCL_PROFILER_PLUGIN",
    "NCCL_TOPO_FILE",
    "UCX_NET_DEVICES",
)
_OF_RANK: Final = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES")  # launchers give each rank its device
_UNLIKE_VERSIONS: Final = "ranks of one job should run the same: a different one may choose other algorithms, or hang"
_UNLIKE_SETTINGS: Final = "ranks of one job should be started with the same settings"
_UNLIKE_NODES: Final = "the slowest of them sets the pace of every collective"


_UNLIKE_RECORDERS: Final = "times of these ranks are not told alike"
_OF_INTERFACE: Final = (
    ("mtu", "MTU", "packets that are too large for one end may be lost"),
    ("speed_mbit_s", "Mbit/s", _UNLIKE_NODES),
)


@dataclass(frozen=True)
class Difference:
    """Something that is not the same on all ranks of which it is known.

    Attributes:
        what: "setting", "version", "host", "interface", "recording" or "model".
        name: of the setting, or of what is compared.
        sides: value, and the ranks that have it, the most ranks first.
        expected: it often differs for a good reason.
        note: why it matters; "" where it is expected.
    """

    what: str
    name: str
    sides: tuple[tuple[str, tuple[int, ...]], ...]
    expected: bool
    note: str


def find_differences(infos: Mapping[int, Info]) -> tuple[Difference, ...]:
    """Every difference between ranks, the unexpected first.

    Args:
        infos: rank.json of each rank. What a rank's file does not tell is not compared.
    """
    found = [*_settings(infos), *_described(infos), *_interfaces(infos)]
    return tuple(sorted(found, key=lambda each: each.expected))


def _difference(
    what: str, name: str, values: Mapping[int, str], expected: bool = False, note: str = ""
) -> Iterator[Difference]:
    """None where all are alike."""
    sides: dict[str, list[int]] = {}
    for rank, value in sorted(values.items()):
        sides.setdefault(value, []).append(rank)
    if len(sides) > 1:
        ordered = sorted(sides.items(), key=lambda side: (-len(side[1]), side[1]))
        told = tuple((value, tuple(ranks)) for value, ranks in ordered)
        yield Difference(what, name, told, expected, "" if expected else note)


def _settings(infos: Mapping[int, Info]) -> Iterator[Difference]:
    told = {
        rank: words(info, "environment") for rank, info in infos.items() if isinstance(info.get("environment"), dict)
    }
    names = sorted({name for settings in told.values() for name in settings} - set(_OWN))
    for name in names:
        values = {rank: settings.get(name, NOT_SET) for rank, settings in told.items()}
        expected = name in _OF_RANK or (name in _OF_HOST and _alike_on_hosts(infos, values))
        yield from _difference("setting", name, values, expected, _UNLIKE_SETTINGS)


def _alike_on_hosts(infos: Mapping[int, Info], values: Mapping[int, str]) -> bool:
    """Whether the ranks of each host agree."""
    hosts: dict[str, set[str]] = {}
    for rank, value in values.items():
        hosts.setdefault(machine_of(infos[rank]), set()).add(value)
    return all(len(own) == 1 for own in hosts.values())


def _described(infos: Mapping[int, Info]) -> Iterator[Difference]:
    """What rank.json says of software, host and recording."""
    for what, name, read, note in _DESCRIBED:
        yield from _difference(what, name, _known(infos, read), not note, note)
    told = {rank: words(info, "hooks") for rank, info in infos.items()}
    for hook in sorted({hook for hooks in told.values() for hook in hooks}):
        own = {rank: hooks[hook] for rank, hooks in told.items() if hook in hooks}
        yield from _difference("recording", f"hook: {hook}", own, hook != "recorder", _UNLIKE_RECORDERS)


def _known(infos: Mapping[int, Info], read: Callable[[Info], Any]) -> dict[int, str]:
    values = {rank: read(info) for rank, info in infos.items()}
    return {rank: str(value) for rank, value in values.items() if value is not None}


def _fix(info: Info) -> str | None:
    if "fix" not in info:
        return None
    fix = info["fix"]
    applied = fix.get("applied") if isinstance(fix, dict) else None
    return ", ".join(map(str, applied)) or "none" if isinstance(applied, list) else "none"


def _models(info: Info) -> str | None:
    if not isinstance(info.get("models"), list):
        return None
    return ", ".join(f"{model.get('kind')} {model.get('name')}" for model in entries(info, "models")) or "none"


def _interfaces(infos: Mapping[int, Info]) -> Iterator[Difference]:
    """Interfaces with an address that reach other hosts, and RDMA ports."""
    told = {rank: _reaching(info) for rank, info in infos.items() if isinstance(info.get("interfaces"), list)}
    names = {rank: ", ".join(sorted(own)) or "none" for rank, own in told.items()}
    yield from _difference("interface", "interfaces with an address", names, expected=True)
    for name in sorted({name for own in told.values() for name in own}):
        having = {rank: own[name] for rank, own in told.items() if name in own}
        for field, word, note in _OF_INTERFACE:
            values = {rank: str(entry[field]) for rank, entry in having.items() if entry.get(field) is not None}
            yield from _difference("interface", f"{word} of {name}", values, False, note)
    ports = {rank: text for rank, info in infos.items() if (text := _ports(info)) is not None}
    yield from _difference("interface", "InfiniBand and RoCE ports", ports, False, _UNLIKE_NODES)


def _reaching(info: Info) -> dict[str, dict[str, Any]]:
    named = {str(each.get("name")): each for each in entries(info, "interfaces") if each.get("address")}
    return {name: each for name, each in named.items() if not name.startswith(("lo", *INSIDE))}


def _ports(info: Info) -> str | None:
    """The ports that a sampler's rank.json lists; None where the rank read no links of its node."""
    links = [link for link in entries(info, "links") if link.get("kind") != "process"]
    if not links:
        return None
    ports = [link for link in links if link.get("kind") in ("infiniband", "roce")]
    return ", ".join(f"{port.get('name')} {_speed(port)}" for port in ports) or "none"


def _speed(port: Mapping[str, Any]) -> str:
    peak = port.get("peak_bytes_per_s")
    return f"{peak / 1e9:g} GB/s" if isinstance(peak, int) else "of unknown speed"


def _field(name: str) -> Callable[[Info], Any]:
    return lambda info: info.get(name)


# What is compared, its name, how it is read, and why a difference matters ("" where it is expected).
_DESCRIBED: Final[tuple[tuple[str, str, Callable[[Info], Any], str], ...]] = (
    *(("version", name, _field(name), _UNLIKE_VERSIONS) for name in ("commlens", "torch", "cuda", "nccl", "python")),
    ("version", "kernel", _field("platform"), ""),
    ("host", "GPU", _field("gpu"), _UNLIKE_NODES),
    ("host", "cores a rank may use", _field("cpus"), _UNLIKE_NODES),
    ("host", "backend", _field("backend"), _UNLIKE_VERSIONS),
    ("recording", "changes of COMMLENS_FIX", _fix, "some ranks were changed, others were not"),
    ("model", "models", _models, ""),
)
