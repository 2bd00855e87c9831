"""Settings that change communication, and what they do to it.

Facts are those of torch's and NCCL's documentation of each variable. A setting
is not wrong by itself: each note says when it matters.
"""

from __future__ import annotations

from typing import Any, NamedTuple


class Setting(NamedTuple):
    """One setting worth knowing about."""

    name: str
    value: str
    note: str


_NOTES: dict[tuple[str, str], str] = {
    ("CUDA_DEVICE_MAX_CONNECTIONS", "1"): "one queue for all kernels: tensor parallelism wants it, overlap suffers",
    ("CUDA_LAUNCH_BLOCKING", "1"): "every kernel is waited for: nothing overlaps",
    ("NCCL_IB_DISABLE", "1"): "InfiniBand and RoCE are off: traffic between hosts goes over TCP",
    ("NCCL_P2P_DISABLE", "1"): "GPUs of one host cannot reach each other directly (NVLink, PCIe)",
    ("NCCL_SHM_DISABLE", "1"): "GPUs of one host that have no direct path use the network",
    ("NCCL_NET", "Socket"): "traffic between hosts goes over TCP",
    ("TORCH_NCCL_BLOCKING_WAIT", "1"): "wait() holds the host thread until the collective is done",
    ("TORCH_DISTRIBUTED_DEBUG", "DETAIL"): "every collective is preceded by a consistency check: much slower",
    ("NCCL_DEBUG", "TRACE"): "NCCL logs every call: slow, for debugging only",
}  # fmt: skip
_INTERFACE_VARIABLES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")


def settings_to_know(settings: dict[str, str], interfaces: list[dict[str, Any]]) -> list[Setting]:
    """What of one rank's environment changes communication in a way people are surprised by.

    Args:
        settings: Environment variables, as in rank.json.
        interfaces: Network interfaces, as in rank.json (`name`, `state`).
    """
    found = [Setting(*pair, note) for pair, note in _NOTES.items() if settings.get(pair[0]) == pair[1]]
    for name in _INTERFACE_VARIABLES:
        if name in settings:
            found += _interface_notes(name, settings[name], interfaces)
    return found


def _interface_notes(name: str, value: str, interfaces: list[dict[str, Any]]) -> list[Setting]:
    # NCCL: "^a,b" excludes, "=a,b" names exactly, "a,b" are prefixes; Gloo takes exact names.
    if value.startswith("^"):
        return []
    states = {str(entry["name"]): entry.get("state") for entry in interfaces}
    notes = []
    for wanted in value.lstrip("=").split(","):
        matches = [found for found in states if found.startswith(wanted.split(":")[0])]
        if not matches:
            notes.append(Setting(name, value, f"there is no interface {wanted!r} on this host"))
        elif all(states[found] == "down" for found in matches):
            notes.append(Setting(name, value, f"interface {wanted!r} is down"))
        elif matches == ["lo"]:
            notes.append(Setting(name, value, "the loopback interface reaches only this host"))
    return notes
