"""What `commlens doctor` says of a machine."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from commlens.analyzers.health.machine import SHOULD_SEE, Built, Network, Torch, Trial
from commlens.analyzers.health.sights import (
    GLOO_ASYNCHRONOUS,
    GLOO_BOUND,
    GLOO_MESSAGES,
    GLOO_NATIVE,
    GLOO_SYNCHRONOUS,
    NCCL_BARE,
    NCCL_PLUGIN,
    NCCL_WINDOW,
    OTHER,
    Sight,
)
from commlens.analyzers.settings.interfaces import Choice
from commlens.render.checks import Check, Diagnosis, Part
from commlens.render.words import counted

# Calls, what the end of a collective means there, and what its start.
SIGHTS: Final = {
    GLOO_NATIVE: ("Gloo, native recorder", "Gloo's thread had done it", "Gloo's thread began it"),
    GLOO_SYNCHRONOUS: ("Gloo, synchronous", "wait() returned", "estimated from the group's queue"),
    GLOO_ASYNCHRONOUS: ("Gloo, asynchronous", "its future completed", "estimated from the group's queue"),
    GLOO_BOUND: (
        "Gloo, async reduce_scatter",
        "the caller's wait() returned: this or earlier",
        "estimated from the group's queue",
    ),
    GLOO_MESSAGES: ("Gloo, send and recv", "the caller's wait() returned: this or earlier", "when issued"),
    NCCL_PLUGIN: ("NCCL with the plugin", "its kernel ended", "its kernel began"),
    NCCL_WINDOW: ("NCCL in a deep window", "its kernel ended", "its kernel began"),
    NCCL_BARE: ("NCCL without the plugin", "not known, time budget and overlap abstain", "not known"),
    OTHER: ("other backends", "not known, time budget and overlap abstain", "not known"),
}
_GRAPHS: Final = (
    "captures and replays are counted; collectives of replays pass no hook: deep windows see their kernels,"
    " NCCL's plugin its operations"
)
TRIAL: Final = "Recording, tried on a one-rank job"


def versions_part(versions: Mapping[str, str | None]) -> Part:
    """Versions of what commlens stands on."""
    return Part(
        "Versions",
        tuple(
            Check(None, name, version) if version else Check(False, name, "not installed", f"pip install {name}")
            for name, version in versions.items()
        ),
    )


def attaching_part(folder: str | None) -> Part:
    """Whether site-packages holds the line that attaches."""
    then = "pip install commlens, or commlens.record() in the job"
    absent = Check(False, "commlens.pth", "not in site-packages", then)
    check = absent if folder is None else Check(True, "commlens.pth", folder)
    return Part("Attaching by COMMLENS", (check,))


def torch_part(torch: Torch) -> Part:
    """Backends of this torch and the devices it sees."""
    if torch.error:
        return Part("torch.distributed", (Check(False, "import torch", torch.error, "reinstall torch"),))
    if not torch.distributed:
        return Part("torch.distributed", (Check(False, "torch.distributed", "not in this build of torch"),))
    backends = ", ".join(torch.backends) or "none"
    nccl = (Check(None, "NCCL", torch.nccl),) if torch.nccl else ()
    return Part(
        "torch.distributed", (Check(None, "backends", backends), Check(None, "CUDA devices", str(torch.gpus)), *nccl)
    )


def trial_part(trial: Trial) -> Part:
    """What became of the one-rank job."""
    if not trial.attached:
        other = "Gloo did not start: look at what it takes, below; GLOO_SOCKET_IFNAME names another interface"
        then = other if "gloo" in trial.error.lower() else ""
        return Part(TRIAL, (Check(False, "attach", trial.error, then),))
    missed, endless = ", ".join(trial.missed), ", ".join(trial.endless)
    checks = [
        Check(True, "attach", "the job was recorded with no change to it"),
        Check(not missed, "collectives", f"not seen: {missed}" if missed else f"all {len(SHOULD_SEE)} kinds seen"),
        Check(not endless, "their ends", f"unknown for {endless}" if endless else "known for all"),
        *(
            Check(seen, phase, "seen" if seen else f"not seen: {trial.hooks.get(phase)}")
            for phase, seen in trial.phases.items()
        ),
    ]
    if trial.entering_us is not None:
        cost = f"{trial.entering_us:.1f} us a collective, plus what each report prints"
        checks.append(Check(None, "way into a hook", cost))
    return Part(TRIAL, tuple(checks))


def built_part(parts: Iterable[Built], torch: Torch) -> Part:
    """What `commlens build` has made."""
    return Part("Compiled parts", tuple(_built(part, torch) for part in parts))


def _built(part: Built, torch: Torch) -> Check:
    if part.path:
        return Check(None, part.name, f"{part.path}, {part.compiler or 'compiler not known'}")
    if part.obstacle:
        return Check(None, part.name, f"not built: {part.obstacle}")
    wanted = part.name != "NCCL plugin" or "nccl" in torch.backends
    return Check(None, part.name, "not built", f"commlens build (by {part.compiler})" if wanted else "")


def sights_part(found: Sequence[Sight], gpus: bool, other_plugin: str = "") -> Part:
    """What start and end of a collective mean.

    Args:
        found: what is seen.
        gpus: whether there are any.
        other_plugin: what NCCL was told to load instead of ours.
    """
    checks = [_sight(each, gpus, other_plugin) for each in found]
    if gpus:
        checks.append(Check(None, "CUDA graphs", _GRAPHS))
    return Part("What the recorder sees", tuple(checks) or (Check(None, "nothing", "there is no backend"),))


def _sight(sight: Sight, gpus: bool, other_plugin: str) -> Check:
    name, end, start = SIGHTS[sight.calls]
    answer = f"end: {end} ({sight.timing}); start: {start}"
    if sight.calls == NCCL_WINDOW:
        return Check(None, name, answer, "COMMLENS_WINDOW=steps=3,every=500 records such windows")
    if sight.calls != NCCL_BARE:
        return Check(None, name, answer)
    instead = f"unset NCCL_PROFILER_PLUGIN: {other_plugin} is loaded in its place"
    return Check(None, name, answer, instead if other_plugin else "commlens build", warning=gpus)


def interfaces_part(network: Network, choices: Sequence[Choice]) -> Part:
    """Interfaces, and which of them each backend takes."""
    checks = [interface_check(entry) for entry in network.interfaces]
    none = Check(None, "none", "no network interface can be seen here", warning=True)
    return Part("Network interfaces", (*(checks or [none]), *(choice_check(each) for each in choices)))


def interface_check(entry: Mapping[str, Any]) -> Check:
    """One interface."""
    speed = f"{entry['speed_mbit_s'] / 1000:g} Gbit/s" if entry.get("speed_mbit_s") else "speed not told by the driver"
    mtu = f", MTU {entry['mtu']}" if entry.get("mtu") else ""
    state = entry.get("state") or "state not known"
    return Check(None, str(entry["name"]), f"{state}, {entry.get('address') or 'no IPv4 address'}, {speed}{mtu}")


def choice_check(choice: Choice, host: str = "") -> Check:
    """Which interfaces a backend takes, and why."""
    name = {"gloo": "Gloo takes", "nccl": "NCCL takes"}[choice.backend] + (f" on {host}" if host else "")
    taken = ", ".join(choice.names) or "no interface that is known"
    reach = " (reaches only this host)" if choice.only_here else ""
    return Check(None, name, f"{taken}{reach}: {choice.why}", choice.next)


def counters_part(network: Network) -> Part:
    """What counters can be read here, how fast each link can be, and what cannot be read and why."""
    told = [
        Check(None, _device(link), f"{_peak(link)}; tells {', '.join(words) or 'nothing'}")
        for link, words in network.told
    ]
    refused = [Check(None, what, f"not read: {reason}") for what, reason in network.refused]
    return Part("Counters of links and devices", (*told, *refused))


def _device(link: Mapping[str, Any]) -> str:
    return "TCP of each rank" if link["kind"] == "process" else f"{link['name']} ({link['kind']})"


def _peak(link: Mapping[str, Any]) -> str:
    peak, source = link["peak_bytes_per_s"], link["peak_from"]
    return f"no peak: {source}" if peak is None else f"{peak / 1e9:g} GB/s each way, from {source}"


def unseen_part(title: str, reason: str, warning: bool = True) -> Part:
    """A part of which nothing could be looked at."""
    return Part(title, (Check(None, "not looked at", reason, warning=warning),))


def verdict(found: Diagnosis) -> str:
    """The last line."""
    warned = f" ({counted(found.warned, 'warning')})" if found.warned else ""
    if found.failed:
        return f"{found.failed} of these keep commlens from working here{warned}."
    return f"Ready{warned}: COMMLENS=1 in front of a job records it."
