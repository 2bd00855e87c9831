"""`commlens doctor`: what works on this machine, tried out rather than assumed."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import site
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import typer

from commlens._version import __version__
from commlens.trace.schema import OPS, POINT_TO_POINT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console

    from commlens.trace import Rank

JOB = Path(__file__).with_name("doctor_job.py")
_SHOULD_SEE = tuple(op for op in OPS if op not in POINT_TO_POINT)


class Check(NamedTuple):
    """One line of the doctor's answer; `ok` None is a fact, not a verdict."""

    ok: bool | None
    name: str
    answer: str


def doctor() -> None:
    """Check this machine: torch, backends, interfaces, which hooks work, settings that cost communication."""
    from rich.console import Console

    console = Console(highlight=False)
    failed = 0
    for title, checks in sections():
        console.print(f"[bold]{title}[/bold]")
        for check in checks:
            failed += check.ok is False
            _show(console, check)
        console.print()
    if failed:
        console.print(f"{failed} of these keep commlens from working here.")
        raise typer.Exit(1)
    console.print("Ready: COMMLENS=1 in front of a job records it.")


def _show(console: Console, check: Check) -> None:
    mark = {True: "[green]ok[/green]  ", False: "[red]FAIL[/red]", None: "    "}[check.ok]
    console.print(f"  {mark} {check.name:22s} {check.answer}", soft_wrap=True)


def sections() -> Iterator[tuple[str, list[Check]]]:
    """The doctor's sections, each computed when it is asked for."""
    yield "Versions", versions()
    yield "Attaching by COMMLENS", [pth_line()]
    if importlib.util.find_spec("torch") is not None:
        found = backends()
        yield "torch.distributed", found
        if not any(check.ok is False for check in found):
            yield "Recording, tried on a one-rank job", try_recording()
        yield "Compiled parts", compiled_parts()
    from commlens.profiler.environment import interfaces, settings

    links = interfaces()
    yield "Network interfaces", [_interface(entry) for entry in links]
    yield "Counters of links and devices", counters()
    yield "Settings that change communication", _settings(settings(), links)


def versions() -> list[Check]:
    """Versions of what commlens stands on."""
    found = [Check(None, "commlens", __version__), Check(None, "python", platform.python_version())]
    for name in ("torch", "numpy", "pyarrow"):
        try:
            found.append(Check(None, name, importlib.metadata.version(name)))
        except importlib.metadata.PackageNotFoundError:
            found.append(Check(False, name, f"not installed; next: pip install {name}"))
    return found


def pth_line() -> Check:
    """Whether site-packages holds the line that attaches."""
    folders = [*site.getsitepackages(), site.getusersitepackages()]
    where = next((folder for folder in folders if (Path(folder) / "commlens.pth").is_file()), None)
    if where is None:
        return Check(False, "commlens.pth", "not in site-packages; next: pip install commlens, or commlens.record()")
    return Check(True, "commlens.pth", where)


def backends() -> list[Check]:
    """Backends of this torch and the devices it sees."""
    try:
        import torch
        import torch.distributed as dist
    except (ImportError, OSError) as error:  # OSError: a shared library that torch needs is not there
        return [Check(False, "import torch", " ".join(str(error).split()))]
    if not dist.is_available():
        return [Check(False, "torch.distributed", "not in this build of torch")]
    named = {
        "gloo": dist.is_gloo_available(),
        "nccl": dist.is_nccl_available(),
        "mpi": dist.is_mpi_available(),
        "ucc": dist.is_ucc_available(),
    }
    have = ", ".join(name for name, there in named.items() if there)
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return [Check(None, "backends", have or "none"), Check(None, "CUDA devices", str(gpus))]


def try_recording() -> list[Check]:
    """Records a one-rank job in a process of its own and looks at what arrived."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "COMMLENS": folder}
        job = subprocess.run([sys.executable, str(JOB)], env=environment, capture_output=True, text=True, timeout=120)
        if job.returncode != 0:
            last = (job.stderr.strip().splitlines() or ["no message"])[-1]
            return [Check(False, "job", f"ended with code {job.returncode}: {last}")]
        return list(_judge(Path(folder), job.stderr))


def compiled_parts() -> list[Check]:
    """What `commlens build` has made for this torch, or what it would need."""
    from commlens.errors import BuildError
    from commlens.profiler import built

    checks = []
    for name, part, compiler in (
        ("native recorder", built.native(), built.CXX),
        ("NCCL plugin", built.nccl_plugin(), built.CC),
    ):
        found = part.found()
        if found is not None:
            checks.append(Check(None, name, f"{found}, {part.note().get('compiler', 'compiler not known')}"))
            continue
        try:
            answer = f"not built; next: commlens build (by {compiler.path()})"
        except BuildError as error:
            answer = f"not built: {error}"
        checks.append(Check(None, name, answer))
    return checks


def _judge(folder: Path, stderr: str) -> Iterator[Check]:
    from commlens.errors import TraceError
    from commlens.trace import open_run

    try:
        rank = open_run(folder).ranks[0]
    except (TraceError, KeyError):
        warning = next((line for line in stderr.splitlines() if line.startswith("commlens")), "no run was written")
        yield Check(False, "attach", warning)
        return
    yield Check(True, "attach", "the job was recorded with no change to it")
    yield from _collectives(rank)
    for phase in ("forward", "backward", "optimizer"):
        seen = phase in rank.table("phases")["phase"].to_pylist()
        yield Check(seen, phase, "seen" if seen else str(rank.info["hooks"].get(phase)))
    cost = (rank.info.get("overhead") or {}).get("trampoline_ns")
    if cost is not None:
        yield Check(None, "way into a hook", f"{cost / 1000:.1f} us a collective, plus what each report prints")


def _collectives(rank: Rank) -> Iterator[Check]:
    rows: list[dict[str, Any]] = rank.table("collectives").select(["op", "completed_ns"]).to_pylist()
    missed = [op for op in _SHOULD_SEE if op not in {row["op"] for row in rows}]
    yield Check(
        not missed,
        "collectives",
        f"not seen: {', '.join(missed)}" if missed else f"all {len(_SHOULD_SEE)} kinds seen",
    )
    endless = sorted({row["op"] for row in rows if row["completed_ns"] is None})
    yield Check(not endless, "their ends", f"unknown for {', '.join(endless)}" if endless else "known for all")


def _interface(entry: dict[str, Any]) -> Check:
    speed = f"{entry['speed_mbit_s'] / 1000:g} Gbit/s" if entry["speed_mbit_s"] else "speed not told by the driver"
    return Check(None, entry["name"], f"{entry['state']}, {entry['address'] or 'no IPv4 address'}, {speed}")


def counters() -> list[Check]:
    """What counters can be read here, how fast each link can be, and what cannot be read and why."""
    from commlens.profiler.counters.probe import look

    answer = look()
    found = [
        Check(None, _device(link), f"{_peak(link)}; tells {', '.join(words) or 'nothing'}")
        for link, words in answer.told
    ]
    return found + [Check(None, what, f"not read: {reason}") for what, reason in answer.refused]


def _device(link: dict[str, Any]) -> str:
    return "TCP of each rank" if link["kind"] == "process" else f"{link['name']} ({link['kind']})"


def _peak(link: dict[str, Any]) -> str:
    peak, source = link["peak_bytes_per_s"], link["peak_from"]
    return f"no peak: {source}" if peak is None else f"{peak / 1e9:g} GB/s each way, from {source}"


def _settings(values: dict[str, str], links: list[dict[str, Any]]) -> list[Check]:
    from commlens.analyzers.environment import settings_to_know

    known = settings_to_know(values, links)
    noted = [Check(None, f"{found.name}={found.value}", found.note) for found in known]
    plain = [Check(None, name, value) for name, value in values.items() if name not in {n.name for n in known}]
    return noted + plain or [Check(None, "none set", "")]
