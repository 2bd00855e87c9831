"""How long a report of thousands of ranks takes, in what memory, and whether it finds what was planted.

Writes runs of bench/scale_run.py, packed as nodes pack them, or takes those that lie in --folder already, and reports
each in a process of its own: the smaller with one worker and with several, the larger with several, a small one also
without a cluster, whose JSON must be the same byte for byte. Memory is looked at five times a second, of each process
apart. The last line is one JSON object.

    .venv/bin/python bench/scale_cluster.py --folder /scratch
    .venv/bin/python bench/scale_cluster.py --ranks 32 --larger 64 --steps 20 --collectives 40
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any, Final

from scale_plan import Shape
from scale_run import FAULTS, SLOW_GROUP, SLOW_HOST, STRAGGLER, make_run, planted_file
from watched import Watched, watched

SMALL: Final = (64, 40, 60)  # ranks, steps and collectives of the run whose reports are compared
_REPORT: Final = (sys.executable, "-m", "commlens", "report")


def main() -> None:
    options = parse()
    with tempfile.TemporaryDirectory(prefix="commlens-scale-") as scratch:
        print(json.dumps(measure(options, options.folder or Path(scratch))))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="where runs are kept (default: a temporary one)")
    parser.add_argument("--ranks", type=int, default=1024)
    parser.add_argument("--larger", type=int, default=4096, help="ranks of the larger run; 0: none")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--collectives", type=int, default=200, help="per rank and step")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--plain", action="store_true", help="rank folders in place of packed files")
    return parser.parse_args()


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """All numbers, with their units in the names."""
    workers, plain = options.workers, options.plain
    shape = Shape(options.ranks, options.steps, options.collectives)
    run = _run(folder, shape, plain)
    count = shape.ranks * shape.steps * shape.collectives
    one, several = (_reported(run, each) for each in (1, workers))
    numbers: dict[str, Any] = {
        "ranks": shape.ranks,
        "collectives": count,
        "bytes_per_collective": round(_bytes(run) / count, 1),
        f"seconds_{shape.ranks}_one_worker": round(one.seconds, 1),
        f"seconds_{shape.ranks}_{_word(workers)}_workers": round(several.seconds, 1),
        f"speedup_{_word(workers)}_over_one": round(one.seconds / several.seconds, 2),
        f"one_and_{_word(workers)}_identical": one.output == several.output,
        **_peaks(several),
        **_found(several, run),
    }
    if options.larger:
        numbers |= _larger(options, folder, several.seconds)
    small = _run(folder, Shape(*SMALL), plain)
    return numbers | {"identical_to_no_cluster": _reported(small, None).output == _reported(small, workers).output}


def _larger(options: argparse.Namespace, folder: Path, seconds: float) -> dict[str, Any]:
    """The same of the larger run, whole and as aggregates alone; `seconds` are those of the smaller."""
    shape, workers = Shape(options.larger, options.steps, options.collectives), options.workers
    run = _run(folder, shape, options.plain)
    whole = _reported(run, workers)
    run_of_sums = _run(folder, shape, options.plain, sums=True)
    sums = _reported(run_of_sums, workers)
    numbers: dict[str, Any] = {
        f"seconds_{shape.ranks}_{_word(workers)}_workers": round(whole.seconds, 1),
        f"ratio_{shape.ranks}_over_{options.ranks}": round(whole.seconds / seconds, 2),
    }
    numbers |= {f"{name}_{shape.ranks}": value for name, value in (_peaks(whole) | _found(whole, run)).items()}
    numbers[f"seconds_{shape.ranks}_aggregates"] = round(sums.seconds, 1)
    of_sums = _peaks(sums) | _found(sums, run_of_sums)
    return numbers | {f"{name}_{shape.ranks}_aggregates": value for name, value in of_sums.items()}


def _word(workers: int) -> str:
    return {1: "one", 2: "two"}.get(workers, str(workers))


def _run(folder: Path, shape: Shape, plain: bool, sums: bool = False) -> Path:
    """The run of a shape: the one that is there, or a new one."""
    form = ("" if plain else "-packed") + ("-sums" if sums else "")
    path = folder / f"{shape.ranks}x{shape.steps}x{shape.collectives}{form}"
    if not planted_file(path).exists():
        print(f"writing {path}", flush=True)
        make_run(path, shape, packed=not plain, sums=sums, processes=2)
    return path


def _bytes(run: Path) -> int:
    return sum(file.stat().st_size for file in run.rglob("*") if file.is_file())


@cache
def _has_workers() -> bool:
    shown = subprocess.run([*_REPORT, "--help"], capture_output=True, text=True, check=True).stdout
    return "--workers" in shown


def _reported(run: Path, workers: int | None) -> Watched:
    """The report of a run with some workers; None: without a cluster, as where this commlens knows none."""
    cluster = ["--workers", str(workers)] if workers is not None and _has_workers() else []
    found = watched([*_REPORT, str(run), "--format", "json", *cluster])
    told = f"{workers} workers" if cluster else "no cluster"
    print(
        f"{run.name}: {told}: {found.seconds:.1f} s; MiB (its own): client {found.own.rss:.0f}"
        f" ({found.own.anonymous:.0f}), worker {found.worker.rss:.0f} ({found.worker.anonymous:.0f})",
        flush=True,
    )
    return found


def _peaks(watched: Watched) -> dict[str, Any]:
    return {
        "worker_peak_mib": round(watched.worker.rss),
        "worker_peak_anonymous_mib": round(watched.worker.anonymous),
        "client_peak_mib": round(watched.own.rss),
        "client_peak_anonymous_mib": round(watched.own.anonymous),
    }


def _found(watched: Watched, run: Path) -> dict[str, Any]:
    """Which faults, and the share of collectives that were matched; null where only sums were recorded."""
    report = json.loads(watched.output)
    found = found_faults(report, json.loads(planted_file(run).read_text()))
    matched, seen = (report["coverage"][f"collectives_{which}"] for which in ("matched", "seen"))
    return {f"found_{fault}": each for fault, each in found.items()} | {
        "matched_percent": round(100 * matched / seen, 3) if seen else None
    }


def found_faults(report: dict[str, Any], planted: dict[str, Any]) -> dict[str, bool]:
    """Whether a report names what was planted, each by a finding of its own and nobody else with it."""
    late = [finding["ranks"] for finding in report["findings"] if finding["id"] == "straggler-rank"]
    slow = [finding["group"] for finding in report["findings"] if finding["id"] in ("slow-link", "slow-group")]
    checks = {
        STRAGGLER: lambda told: [told["rank"]] in late,
        SLOW_HOST: lambda told: told["ranks"] in late,
        SLOW_GROUP: lambda told: slow == [told["group"]],
    }
    return {fault: bool(checks[fault](planted[fault])) for fault in FAULTS if fault in planted}


if __name__ == "__main__":
    main()
