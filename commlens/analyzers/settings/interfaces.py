"""Network interfaces: what variables say of them, and which one Gloo and NCCL take.

Gloo binds to the interfaces that GLOO_SOCKET_IFNAME names in full, else to the address that the host's name resolves
to, else, where that is none of this host's, to the loopback (torch, ProcessGroupGloo). NCCL takes what
NCCL_SOCKET_IFNAME selects, else all that begin with "ib", else all but docker, lo and virbr, else docker, else lo
(NCCL's documentation of that variable); over InfiniBand and RoCE ports it moves bytes without them, and only sets up
over the first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from commlens.analyzers.settings.setting import BREAKS, COSTS, NOTED, Job, Setting, is_on

Interface = Mapping[str, Any]

GLOO_VARIABLE: Final = "GLOO_SOCKET_IFNAME"
NCCL_VARIABLE: Final = "NCCL_SOCKET_IFNAME"
_OWNERS: Final = {GLOO_VARIABLE: "gloo", NCCL_VARIABLE: "nccl"}
INSIDE: Final = ("docker", "virbr", "br-", "cni", "veth", "flannel", "podman")  # bridges that live on one host
_LAST: Final = ("docker", "lo", "virbr")  # what NCCL takes only where there is nothing else


@dataclass(frozen=True)
class Choice:
    """The interfaces that a backend takes.

    Attributes:
        backend: "gloo" or "nccl".
        names: of the interfaces; none where it cannot be told, or where there is none.
        why: the rule that chose them, or what is not known.
        only_here: they reach only this host.
        next: how to choose others, "" where nothing speaks for it.
    """

    backend: str
    names: tuple[str, ...]
    why: str
    only_here: bool = False
    next: str = ""


def interface_notes(settings: Mapping[str, str], interfaces: Sequence[Interface], job: Job) -> list[Setting]:
    """What is wrong with the variables that name interfaces."""
    found: list[Setting] = []
    for name, backend in _OWNERS.items():
        value = settings.get(name)
        if value and interfaces and job.may_use(backend):
            found += _notes(name, value, interfaces, job)
    return found


def _notes(name: str, value: str, interfaces: Sequence[Interface], job: Job) -> list[Setting]:
    given = ((name, value),)
    other = _suggested(interfaces)
    what = f"{name}={other}" if other else f"unset {name}"
    chosen = selected(name, value, interfaces)
    if value.startswith("^"):
        if name == GLOO_VARIABLE:
            return [Setting(given, "Gloo takes whole names only: it looks for an interface of that name", BREAKS, what)]
        if not any(each.get("address") for each in chosen) and any(each.get("address") for each in interfaces):
            return [Setting(given, "leaves NCCL no interface with an address on this host", BREAKS, what)]
        return []
    notes = []
    for wanted in _wanted(value):
        own = selected(name, wanted if not value.startswith("=") else f"={wanted}", interfaces)
        said = _wrong(wanted, own, job)
        if said is not None:
            note, kind = said
            kind = NOTED if kind == BREAKS and name == NCCL_VARIABLE and _good(chosen) else kind
            notes.append(Setting(given, note, kind, "" if kind == NOTED else what))
    return notes


def _wrong(wanted: str, own: Sequence[Interface], job: Job) -> tuple[str, str] | None:
    """What keeps the interfaces of one name from carrying traffic, and how bad it is; None where nothing does."""
    if not own:
        return f"there is no interface {wanted!r} on this host", BREAKS
    if all(each.get("state") == "down" for each in own):
        return f"interface {wanted!r} is down", BREAKS
    names = [str(each["name"]) for each in own]
    serious = COSTS if job.hosts is None else BREAKS
    if names == ["lo"]:
        return "the loopback interface reaches only this host", NOTED if job.hosts == 1 else serious
    if all(name.startswith(INSIDE) for name in names):
        note = f"interface {wanted!r} is a bridge within this host: other hosts cannot be reached by it"
        return note, NOTED if job.hosts == 1 else serious
    return None


def selected(name: str, value: str, interfaces: Sequence[Interface]) -> list[Interface]:
    """What a variable selects: for Gloo whole names; for NCCL prefixes, "=" whole names, "^" all others."""
    excludes, text = value.startswith("^"), value.removeprefix("^")
    whole = text.startswith("=") or name == GLOO_VARIABLE
    words = [word.split(":")[0] for word in _wanted(text)]

    def is_named(interface: Interface) -> bool:
        own = str(interface.get("name"))
        return own in words if whole else own.startswith(tuple(words))

    return [each for each in interfaces if is_named(each) != (excludes and name == NCCL_VARIABLE)]


def _wanted(value: str) -> list[str]:
    return [word.strip() for word in value.lstrip("^=").split(",") if word.strip()]


def _good(interfaces: Sequence[Interface]) -> list[Interface]:
    """Those that can carry traffic, in the kernel's order where that is known."""
    usable = [each for each in interfaces if each.get("address") and each.get("state") != "down"]
    return sorted(usable, key=lambda each: each.get("index") or 0)


def _suggested(interfaces: Sequence[Interface]) -> str | None:
    """The fastest interface that reaches other hosts; None where there is none."""
    own = [each for each in _good(interfaces) if not str(each["name"]).startswith((*INSIDE, "lo"))]
    best = max(own, key=lambda each: each.get("speed_mbit_s") or 0, default=None)
    return str(best["name"]) if best is not None else None


def gloo_choice(settings: Mapping[str, str], interfaces: Sequence[Interface], address: str | None) -> Choice:
    """What Gloo binds to.

    Args:
        settings: environment variables.
        interfaces: of the host.
        address: of this host that its name resolves to, "" where it resolves to none of them; None where not known.
    """
    value = settings.get(GLOO_VARIABLE)
    if value:
        names = tuple(str(each["name"]) for each in selected(GLOO_VARIABLE, value, interfaces))
        return Choice("gloo", names, f"{GLOO_VARIABLE}={value}", _only_here(names))
    other = _suggested(interfaces)
    change = f"where the job has several hosts: {GLOO_VARIABLE}={other}" if other else ""
    if address is None:
        return Choice("gloo", (), "the address that the host's name resolves to, which was not recorded")
    if not address:
        why = "the host's name resolves to no address of this host: torch falls back to the loopback"
        return Choice("gloo", ("lo",), why, True, change)
    names = _with_address(address, _good(interfaces))
    why = f"the host's name resolves to {address}"
    if not names:
        return Choice("gloo", (), f"{why}, which no interface has that is up", next=change)
    return Choice("gloo", names, why, _only_here(names), change if _only_here(names) else "")


def _with_address(address: str, interfaces: Sequence[Interface]) -> tuple[str, ...]:
    """Names of those that have it; every address that begins with 127. is the loopback's."""
    loopback = address.startswith("127.")
    return tuple(
        str(each["name"]) for each in interfaces if each["address"] == address or (loopback and each["name"] == "lo")
    )


def nccl_choice(settings: Mapping[str, str], interfaces: Sequence[Interface], rdma: Sequence[str] | None) -> Choice:
    """What NCCL takes between hosts.

    Args:
        settings: environment variables.
        interfaces: of the host.
        rdma: its InfiniBand and RoCE ports that are up; None where not known.
    """
    chosen, why = _nccl_sockets(settings, _good(interfaces))
    names = tuple(str(each["name"]) for each in chosen)
    tcp = is_on(settings.get("NCCL_IB_DISABLE")) or settings.get("NCCL_NET", "").lower() == "socket"
    if rdma and not tcp:
        ports = ", ".join(rdma)
        return Choice("nccl", names, f"bytes go over {ports} (verbs), these are for set-up: {why}", _only_here(names))
    if not names:
        return Choice("nccl", (), why, next=f"{NCCL_VARIABLE}=an interface with an address")
    unknown = "; InfiniBand and RoCE ports were not looked at" if rdma is None and not tcp else ""
    first = f", set-up over {names[0]}" if len(names) > 1 else ""
    return Choice("nccl", names, f"TCP{first}: {why}{unknown}", _only_here(names))


def _nccl_sockets(settings: Mapping[str, str], usable: Sequence[Interface]) -> tuple[Sequence[Interface], str]:
    value = settings.get(NCCL_VARIABLE)
    if value:
        return selected(NCCL_VARIABLE, value, usable), f"{NCCL_VARIABLE}={value}"
    infiniband = selected(NCCL_VARIABLE, "ib", usable)
    if infiniband:
        return infiniband, "names that begin with ib come first"
    usual = [each for each in usable if not str(each["name"]).startswith(_LAST)]
    if usual:
        return usual, "every interface with an address but docker, lo and virbr"
    for last in _LAST:
        own = selected(NCCL_VARIABLE, last, usable)
        if own:
            return own, "there is no other with an address"
    return [], "no interface has an IPv4 address"


def _only_here(names: Sequence[str]) -> bool:
    return bool(names) and all(name == "lo" or name.startswith(INSIDE) for name in names)
