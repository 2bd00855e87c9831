"""Interfaces, TCP and this process' own connections, on this machine as it is."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from commlens.profiler.counters import process
from commlens.profiler.counters.ethernet import DEV, Ethernet
from commlens.profiler.counters.files import CounterFile
from commlens.profiler.counters.process import Process
from commlens.profiler.counters.source import Key, Source
from commlens.profiler.counters.tcp import Tcp

pytestmark = pytest.mark.skipif(not DEV.exists(), reason="needs Linux")
HEAD = (
    "Inter-|   Receive                                                |  Transmit\n"
    " face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier\n"
)
LINE = "{name}: 1001 12 3 4 0 0 0 0 5005 16 7 8 0 0 0 0\n"


def read(source: Source) -> dict[Key, int]:
    raw = source.read()
    return dict(source.decode(raw)) if raw is not None else {}


def test_an_interface_is_read_as_the_kernel_writes_it(tmp_path: Path) -> None:
    dev = tmp_path / "dev"
    dev.write_text(HEAD + LINE.format(name="    lo") + LINE.format(name="nosuch0"))
    source = Ethernet(dev)
    source.refresh()
    assert read(source) == {
        ("lo", "rx_bytes"): 1001,
        ("lo", "rx_packets"): 12,
        ("lo", "rx_errors"): 3,
        ("lo", "rx_drops"): 4,
        ("lo", "tx_bytes"): 5005,
        ("lo", "tx_packets"): 16,
        ("lo", "tx_errors"): 7,
        ("lo", "tx_drops"): 8,
    }
    (link,) = source.links
    assert (link["kind"], link["peak_bytes_per_s"], link["bytes"]) == ("ethernet", None, "frames")
    assert "node" in link["note"]
    dev.write_text(HEAD + "    lo: nonsense\n")
    assert read(source) == {}


def test_without_procfs_interfaces_are_refused(tmp_path: Path) -> None:
    source = Ethernet(tmp_path / "dev")
    source.refresh()
    assert source.read() is None
    (refused,) = source.unsupported
    assert refused["reason"].endswith("no such file or directory")


@pytest.fixture
def crowded() -> Iterator[str]:
    """A network namespace with 60 interfaces, 40 of which are up."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("needs root and iproute2")
    name = f"clcounters{os.getpid()}"
    if subprocess.run(["ip", "netns", "add", name], capture_output=True, check=False).returncode:
        pytest.skip("no network namespaces on this machine")
    try:
        lines = [f"link add some-{number} type veth peer name some-{number + 30}" for number in range(30)]
        lines += [f"link set some-{number} up" for number in range(40)]
        made = subprocess.run(["ip", "-n", name, "-batch", "-"], input="\n".join(lines), text=True, capture_output=True)
        if made.returncode:
            pytest.skip(f"no virtual interfaces on this machine: {made.stderr}")
        yield name
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=False)


def test_many_interfaces_are_all_seen_and_as_many_read_as_is_affordable(crowded: str) -> None:
    script = """
from commlens.profiler.counters.ethernet import Ethernet
source = Ethernet()
source.refresh()
raw = source.read()
print(len(raw.splitlines()) - 2, len({device for (device, _), _ in source.decode(raw)}), len(source.unsupported))
"""
    done = subprocess.run(
        ["ip", "netns", "exec", crowded, sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["61", "32", "8"]  # the loopback is down


def test_a_file_is_opened_again_when_it_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "value"
    path.write_text("1\n")
    with closing(CounterFile(path)) as file:
        assert [file.read(), file.read()] == [b"1\n", b"1\n"]
        path.write_text("2\n")
        assert file.read() == b"2\n"
        file.close()
        path.unlink()
        with pytest.raises(FileNotFoundError):
            file.read()
        path.write_text("3\n")
        assert file.read() == b"3\n"


def test_tcp_segments_of_the_namespace(tmp_path: Path) -> None:
    snmp = tmp_path / "snmp"
    snmp.write_text("Ip: Forwarding\nIp: 1\nTcp: RtoMin OutSegs RetransSegs\nTcp: 200 77 5\nUdp: InDatagrams\nUdp: 3\n")
    source = Tcp(snmp)
    source.refresh()
    assert read(source) == {("tcp", "tx_segments"): 77, ("tcp", "retransmits"): 5}
    snmp.write_text("Tcp: RtoMin OutSegs\nTcp: 200 77\n")
    assert read(source) == {("tcp", "tx_segments"): 77}
    assert source.unsupported[0]["counter"] == "retransmits"


def connected() -> tuple[socket.socket, socket.socket]:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        return socket.create_connection(listening.getsockname()), listening.accept()[0]


def move(sender: socket.socket, receiver: socket.socket, count: int) -> None:
    sender.sendall(bytes(count))
    received = 0
    while received < count:
        received += len(receiver.recv(1 << 16))


def test_a_process_knows_its_own_bytes_also_of_connections_that_ended() -> None:
    source = Process()
    source.refresh()
    device = f"process-{os.getpid()}"
    assert [link["name"] for link in source.links] == [device]
    before = read(source)
    first, second = connected()
    move(first, second, 100_000)
    during = read(source)
    received = during[device, "rx_bytes"] - before[device, "rx_bytes"]
    assert received == 100_000
    assert during[device, "tx_segments"] > before[device, "tx_segments"]
    first.close()
    second.close()
    first, second = connected()  # the same numbers again
    move(second, first, 5_000)
    after = read(source)
    assert after[device, "rx_bytes"] - during[device, "rx_bytes"] == 5_000
    assert after[device, "tx_bytes"] >= during[device, "tx_bytes"]
    first.close()
    second.close()


def test_a_kernel_that_does_not_tell_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "_LEAST", 10**6)  # as one whose answer is shorter
    source = Process()
    source.refresh()
    assert (source.links, source.read()) == ([], None)
    assert source.unsupported[0]["reason"] == "the kernel does not tell bytes of a connection"


def test_asking_disturbs_no_other_descriptor(tmp_path: Path) -> None:
    source = Process()
    source.refresh()
    with (tmp_path / "file").open("w") as file, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        here, there = socket.socketpair()
        with here, there:
            before = set(Path("/proc/self/fd").iterdir())
            source.read()
            assert set(Path("/proc/self/fd").iterdir()) == before
            here.send(b"still open")
            assert there.recv(20) == b"still open"
        file.write("still open")
        udp.bind(("127.0.0.1", 0))
