"""Emulated hosts: network namespaces with shaped links, and a launcher of ranks on them. Needs root.

    with lab_hosts([400, 400, 100]) as lab:         # Mbit/s of each host's link, None for one as fast as it goes
        ended = lab.launch(job, "--steps", "20", ranks_per_host=2, env={"COMMLENS": str(folder)})

Every host has one interface, joined by a veth to a bridge that has a namespace of its own: egress is shaped on the
host's end, ingress on the bridge's end. Two hosts are joined directly. A pair's own rate is an HTB class on the egress
of both of its hosts, which a u32 filter picks by the destination's address.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import IO

from lab import skew

PREFIX = "clh"
INTERFACE = "lab0"
PORT = 29500  # in the namespace of host 0, where nobody else listens
Pairs = Mapping[tuple[int, int], float]
_BURST_S = 200e-6
_TWO_FRAMES = 3100
_LIMIT = "16m"  # queued bytes beyond which packets are lost: a loss costs TCP 200 ms
_LINE_RATE = 1000.0  # Mbit/s, where a host with slow peers has no rate of its own
_GRACE_S = 5.0
# The machine's own choice may be bbr, which paces and probes: times of equal messages then differ by 20 %.
_TCP = ("net.ipv4.tcp_congestion_control=reno", "net.ipv4.tcp_slow_start_after_idle=0")
_labs = count()


class LabError(RuntimeError):
    """A rank failed, or the ranks did not end in time."""


@dataclass(frozen=True)
class Ended:
    """What a rank left behind; `rc` is negative for a rank that was killed."""

    rank: int
    host: int
    rc: int
    stdout: str
    stderr: str


def available() -> str | None:
    """Why there can be no emulated hosts here, None when there can."""
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        return "emulated hosts need Linux and root"
    for tool in ("ip", "tc"):
        if shutil.which(tool) is None:
            return f"emulated hosts need the command {tool} (iproute2)"
    try:
        with lab_hosts([100, 100, 100], {(0, 1): 50}):
            return None
    except (subprocess.SubprocessError, OSError) as error:
        said = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
        return f"no shaped network namespaces on this machine: {said[-1] if said else error}"


@contextmanager
def lab_hosts(rates: Sequence[float | None], pairs: Pairs | None = None) -> Iterator[Lab]:
    """Hosts that are up; nothing of them is left afterwards, whatever happens within.

    Args:
        rates: Mbit/s of each host's link, one per host, at least two.
        pairs: Mbit/s between two hosts, where it is less than their links give.
    """
    _remove_stale()
    lab = Lab(f"{PREFIX}{os.getpid()}x{next(_labs)}", len(rates))
    with ExitStack() as cleanup:
        for namespace in lab.namespaces:
            _do(f"ip netns add {namespace}")
            cleanup.callback(_remove, namespace)
        (_join_two if len(rates) == 2 else _join_many)(lab, rates, pairs or {})
        yield lab


class Lab:
    """Emulated hosts: their namespaces and addresses, and ranks on them.

    Attributes:
        reference: the reading of the machine's clocks that the hosts' clocks are relative to.
    """

    def __init__(self, name: str, hosts: int) -> None:
        self.reference = skew.reference()
        self.hosts = [f"{name}h{host}" for host in range(hosts)]
        self.switch = f"{name}s"
        self.addresses = [f"10.77.0.{host + 1}" for host in range(hosts)]

    @property
    def namespaces(self) -> list[str]:
        return [*self.hosts, self.switch]

    def launch(
        self,
        script: Path,
        *args: str,
        ranks_per_host: int = 1,
        env: Mapping[str, str] | None = None,
        clocks: Sequence[skew.Clock] = (),
        cores: Sequence[int] = (),
        timeout_s: float = 180,
    ) -> list[Ended]:
        """Runs a script as one rank after another on every host, with the variables that torchrun sets.

        Args:
            env: further variables, for example COMMLENS; none of the caller's COMMLENS variables are passed on.
            clocks: how each host's clock goes, one per host; none are changed when empty.
            cores: of this machine that each host has, one per host; all have all of them when empty.

        Raises:
            LabError: a rank failed, or did not end in time. All have ended then.
        """
        count = len(self.hosts) * ranks_per_host
        with tempfile.TemporaryDirectory(prefix="commlens-lab-") as folder, ExitStack() as cleanup:
            ranks = []
            for rank in range(count):
                host = rank // ranks_per_host
                clock = clocks[host] if clocks else None
                variables = self._variables(rank, count, ranks_per_host) | skew.variables(host, clock, self.reference)
                pinned = ["taskset", "--cpu-list", str(cores[host])] if cores else []
                command = [
                    "ip",
                    "netns",
                    "exec",
                    self.hosts[host],
                    *pinned,
                    sys.executable,
                    skew.__file__,
                    str(script),
                    *args,
                ]
                outputs = [cleanup.enter_context(Path(folder, f"{rank}.{name}").open("w+")) for name in ("out", "err")]
                process = subprocess.Popen(
                    command, env=_inherited() | variables | dict(env or {}), stdout=outputs[0], stderr=outputs[1]
                )
                cleanup.callback(_end, process)
                ranks.append((process, outputs))
            late = _wait([process for process, _ in ranks], timeout_s)
            ended = [
                Ended(rank, rank // ranks_per_host, _end(process), *(_text(output) for output in outputs))
                for rank, (process, outputs) in enumerate(ranks)
            ]
        _raise_for(ended, f"no end after {timeout_s} s" if late else "failed")
        return ended

    def _variables(self, rank: int, count: int, ranks_per_host: int) -> dict[str, str]:
        return {
            "RANK": str(rank),
            "WORLD_SIZE": str(count),
            "LOCAL_RANK": str(rank % ranks_per_host),
            "LOCAL_WORLD_SIZE": str(ranks_per_host),
            "MASTER_ADDR": self.addresses[0],
            "MASTER_PORT": str(PORT),
            "GLOO_SOCKET_IFNAME": INTERFACE,
        }


def burst_bytes(rate_mbit: float) -> int:
    """The shaper's bucket: what passes at once after a pause.

    A pause fills it, so that much of a message passes at no cost: small messages look free, and all others
    look faster by the time it holds, 200 us (at 50 Mbit/s 500 us: it must hold two frames). A bucket that holds less
    than arrives while the kernel's timer is late (about 50 us) would cost rate instead.
    """
    return max(_TWO_FRAMES, int(rate_mbit * 1e6 / 8 * _BURST_S))


def _join_two(lab: Lab, rates: Sequence[float | None], pairs: Pairs) -> None:
    known = [rate for rate in (*rates, *pairs.values()) if rate is not None]
    _do(f"ip link add {INTERFACE} netns {lab.hosts[0]} type veth peer name {INTERFACE} netns {lab.hosts[1]}")
    for host, namespace in enumerate(lab.hosts):
        _configure(lab, host)
        _shape(namespace, INTERFACE, min(known, default=None))


def _join_many(lab: Lab, rates: Sequence[float | None], pairs: Pairs) -> None:
    _do(f"ip -n {lab.switch} link add bridge0 type bridge", f"ip -n {lab.switch} link set bridge0 up")
    for host, rate in enumerate(rates):
        _do(
            f"ip link add {INTERFACE} netns {lab.hosts[host]} type veth peer name port{host} netns {lab.switch}",
            f"ip -n {lab.switch} link set port{host} master bridge0 up",
        )
        _configure(lab, host)
        _shape(lab.switch, f"port{host}", rate)
        peers = {lab.addresses[sum(pair) - host]: rate for pair, rate in pairs.items() if host in pair}
        if peers:
            _shape_peers(lab.hosts[host], rate, peers)
        else:
            _shape(lab.hosts[host], INTERFACE, rate)


def _configure(lab: Lab, host: int) -> None:
    namespace = lab.hosts[host]
    _do(
        f"ip -n {namespace} link set lo up",
        f"ip -n {namespace} address add {lab.addresses[host]}/24 dev {INTERFACE}",
        f"ip -n {namespace} link set {INTERFACE} up",
        *(f"ip netns exec {namespace} sysctl -q -w {setting}" for setting in _TCP),
    )


def _shape(namespace: str, device: str, rate: float | None) -> None:
    if rate is not None:
        burst = burst_bytes(rate)
        _do(
            f"ip -n {namespace} link set {device} gso_max_size {burst // 2}",
            f"tc -n {namespace} qdisc add dev {device} root tbf rate {rate}mbit burst {burst} limit {_LIMIT}",
        )


def _shape_peers(namespace: str, rate: float | None, peers: Mapping[str, float]) -> None:
    """HTB in place of TBF: a class per slow peer, the rest in class 1; together no more than the host's rate."""
    whole = rate if rate is not None else _LINE_RATE
    # Both count a packet as a whole, however large the kernel made it, but HTB does not split one that is larger than
    # the bucket. Packets as small as a slow peer's own bucket would slow the host's other traffic by 40 %.
    packet = burst_bytes(min(whole, _LINE_RATE / 2)) // 2
    _do(
        f"ip -n {namespace} link set {INTERFACE} gso_max_size {packet}",
        f"tc -n {namespace} qdisc add dev {INTERFACE} root handle 1: htb default 1",
        _htb(namespace, "1:", "1:99", whole, whole, packet),
        _htb(namespace, "1:99", "1:1", max(whole - sum(peers.values()), 1), whole, packet),
    )
    for number, (address, slow) in enumerate(peers.items(), start=2):
        _do(
            _htb(namespace, "1:99", f"1:{number}", slow, slow, packet),
            f"tc -n {namespace} filter add dev {INTERFACE} parent 1: protocol ip u32"
            f" match ip dst {address}/32 flowid 1:{number}",
        )


def _htb(namespace: str, parent: str, name: str, rate: float, most: float, packet: int) -> str:
    burst = max(burst_bytes(most), 2 * packet)
    return (
        f"tc -n {namespace} class add dev {INTERFACE} parent {parent} classid {name}"
        f" htb rate {rate}mbit ceil {most}mbit burst {burst} cburst {burst} quantum {_TWO_FRAMES}"
    )


def _do(*commands: str) -> None:
    for command in commands:
        subprocess.run(command.split(), check=True, capture_output=True, text=True, timeout=30)


def _remove(namespace: str) -> None:
    subprocess.run(["ip", "netns", "delete", namespace], check=False, capture_output=True, timeout=30)


def _remove_stale() -> None:
    """Removes what a process left that was killed; its ranks died with it (`skew.main`)."""
    listed = subprocess.run(["ip", "netns", "list"], check=True, capture_output=True, text=True, timeout=30).stdout
    for found in re.finditer(rf"^{PREFIX}(\d+)x\S+", listed, re.MULTILINE):
        if not Path("/proc", found[1]).exists():
            _remove(found[0])


def _inherited() -> dict[str, str]:
    tests = Path(__file__).resolve().parent.parent
    paths = [str(tests), str(tests.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("COMMLENS", "LAB_"))}
    # c10d warns about host names that cannot be looked up: there is no name server in here.
    quiet = {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1", "TORCH_CPP_LOG_LEVEL": "ERROR"}
    return kept | quiet | {"COMMLENS_RECORDER": "python"}  # the native one reads the clock behind skew's back


def _wait(processes: Sequence[subprocess.Popen[bytes]], timeout_s: float) -> bool:
    """Waits until all have ended, or a while after one failed; whether time ran out."""
    deadline = time.monotonic() + timeout_s
    failed_until = None
    while any(process.poll() is None for process in processes):
        if failed_until is None and any(process.poll() for process in processes):
            failed_until = time.monotonic() + _GRACE_S
        if time.monotonic() > min(deadline, failed_until or deadline):
            return failed_until is None
        time.sleep(0.02)
    return False


def _end(process: subprocess.Popen[bytes]) -> int:
    if process.poll() is None:
        with suppress(ProcessLookupError):
            process.kill()
    return process.wait()


def _text(output: IO[str]) -> str:
    output.seek(0)
    return output.read()


def _raise_for(ended: Sequence[Ended], how: str) -> None:
    failed = [each for each in ended if each.rc]
    if failed:
        first = max(failed, key=lambda each: each.rc)  # one that failed by itself rather than one that was killed
        codes = {each.rank: each.rc for each in failed}
        raise LabError(f"{how}, exit codes {codes}; rank {first.rank} said:\n{first.stderr[-3000:]}")
