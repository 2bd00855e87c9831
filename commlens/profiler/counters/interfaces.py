"""What the kernel says of a network interface in this process' own network namespace.

/sys/class/net may be another namespace's in a container; these calls never are.
"""

from __future__ import annotations

import array
import fcntl
import socket
import struct
from pathlib import Path
from typing import Final, NamedTuple

from commlens.profiler.counters.files import read_text

_SIOCGIFFLAGS: Final = 0x8913  # linux/sockios.h
_SIOCETHTOOL: Final = 0x8946
_GET_SETTINGS, _GET_DRIVER = 0x1, 0x3  # linux/ethtool.h: ETHTOOL_GSET, ETHTOOL_GDRVINFO
_UP, _LOOPBACK = 0x1, 0x8  # linux/if.h
_UNKNOWN_SPEED: Final = 0xFFFFFFFF
_NOMINAL: Final = ("veth", "tun", "dummy")  # drivers whose speed is a number that limits nothing


class Interface(NamedTuple):
    """One interface; speed in Mbit/s."""

    up: bool
    loopback: bool
    speed_mbit_s: int | None
    driver: str | None
    pci: str | None


def interface(name: str) -> Interface | None:
    """What `name` is; None where there is no such interface here."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as asked:
        try:
            answer = fcntl.ioctl(asked.fileno(), _SIOCGIFFLAGS, struct.pack("16s16x", name.encode()[:15]))
        except OSError:
            return None
        flags = struct.unpack_from("16xH", answer)[0]
        driver, bus = _driver(asked, name)
        return Interface(
            up=bool(flags & _UP),
            loopback=bool(flags & _LOOPBACK),
            speed_mbit_s=_speed(asked, name),
            driver=driver,
            pci=bus if bus is not None and Path("/sys/bus/pci/devices", bus).exists() else None,
        )


def is_nominal(driver: str | None) -> bool:
    """Whether the speed that such a driver tells limits nothing."""
    return driver in _NOMINAL


def numa_node(pci: str | None) -> int | None:
    """The memory that a PCI device is next to, None where the machine does not tell."""
    said = read_text(Path("/sys/bus/pci/devices", pci, "numa_node")) if pci else None
    return int(said) if said is not None and said.isdigit() else None


def _ethtool(asked: socket.socket, name: str, command: int, size: int) -> bytes | None:
    told = array.array("B", struct.pack("I", command) + bytes(size - 4))
    try:
        fcntl.ioctl(asked.fileno(), _SIOCETHTOOL, struct.pack("16sP8x", name.encode()[:15], told.buffer_info()[0]))
    except OSError:
        return None
    return told.tobytes()


def _speed(asked: socket.socket, name: str) -> int | None:
    told = _ethtool(asked, name, _GET_SETTINGS, 44)
    if told is None:
        return None
    low, high = struct.unpack_from("H", told, 12)[0], struct.unpack_from("H", told, 28)[0]
    speed = int(high << 16 | low)
    return speed if 0 < speed < _UNKNOWN_SPEED and speed != 0xFFFF else None


def _driver(asked: socket.socket, name: str) -> tuple[str | None, str | None]:
    told = _ethtool(asked, name, _GET_DRIVER, 196)
    if told is None:
        return None, None
    driver, bus = (told[at : at + 32].split(b"\0")[0].decode("ascii", "replace") for at in (4, 100))
    return driver or None, bus or None
