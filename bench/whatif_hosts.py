"""How well what-if predicts real jobs: DDP with real computing on two emulated hosts, Gloo over a shaped link.

    sudo python bench/whatif_hosts.py

Each base is recorded once and asked about every change of it, with the predictions written down before anything is
tried. Then each change is made, by COMMLENS_FIX or on the link, and measured. The hosts are network namespaces of
this machine (tests/lab/hosts.py) with a rank and a core each, of which the kernel's work for the link takes a part.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from lab.hosts import available, lab_hosts  # noqa: E402

import commlens  # noqa: E402

STEPS = 26
CAPS = ("ddp.bucket_cap_mb=0.5", "ddp.bucket_cap_mb=1", "ddp.bucket_cap_mb=3", "ddp.bucket_cap_mb=25")
FASTER, SLOWER = "link.bandwidth=x2", "link.bandwidth=x0.5"


@dataclass(frozen=True)
class Base:
    """A job on a link of so many Mbit/s, its first recording, and what is changed."""

    name: str
    rate: float
    sample: str
    options: tuple[str, ...]
    changes: tuple[str, ...]


def sized(hidden: int, layers: int, batch: int) -> tuple[str, ...]:
    return ("--hidden", str(hidden), "--layers", str(layers), "--batch", str(batch))


BASES = (
    Base(
        "100 Mbit/s", 100, "ddp", (*sized(512, 9, 2048), "--bucket-cap-mb", "2"), (*CAPS, "ddp.comm_hook=fp16", FASTER)
    ),
    Base("200 Mbit/s", 200, "ddp", (*sized(512, 9, 2048), "--bucket-cap-mb", "6"), (*CAPS, FASTER, SLOWER)),
    Base("400 Mbit/s", 400, "fault_giant_bucket", sized(512, 9, 2048), (*CAPS, FASTER, SLOWER)),
    Base(
        "500 Mbit/s",
        500,
        "ddp",
        (*sized(320, 16, 2048), "--bucket-cap-mb", "1"),
        (*CAPS, "ddp.comm_hook=fp16,ddp.bucket_cap_mb=1", SLOWER),
    ),
)


def run(base: Base, folder: Path, change: str = "") -> Path:
    """Records the job, with a change."""
    scale = {FASTER: 2.0, SLOWER: 0.5}.get(change, 1.0)
    fix = change if change and scale == 1.0 else ""
    env = {"COMMLENS": str(folder), "COMMLENS_FIX": fix}
    with lab_hosts([base.rate * scale] * 2) as lab:
        lab.launch(
            ROOT / "samples" / f"{base.sample}.py",
            "--steps",
            str(STEPS),
            *base.options,
            env=env,
            cores=(0, 1),
            timeout_s=240,
        )
    (found,) = folder.iterdir()
    return found


def step_ms(path: Path) -> float:
    """Median step, mean over the ranks."""
    step = commlens.analyze(commlens.open_run(path)).time_budget.step_ms
    assert step is not None
    return step


def predictions(base: Base, path: Path) -> list[dict[str, Any]]:
    """What is said before anything is tried."""
    before = step_ms(path)
    answers = commlens.simulate(commlens.open_run(path), *base.changes)
    return [
        {"base": base.name, "change": change, "before_ms": before, **asdict(scenario), "refused": answers.abstention}
        for change, scenario in zip(base.changes, answers.scenarios, strict=True)
    ]


def compared(said: dict[str, Any], after_ms: float) -> dict[str, float]:
    """Prints one line; the numbers it adds."""
    predicted, name = said["predicted"], f"{said['base']:10} {said['change']:40}"
    if predicted is None:
        print(f"{name} not predicted: {said['refused'] or said['abstention']}", flush=True)
        return {}
    gain, error = said["before_ms"] - after_ms, 100 * (predicted["step_ms"] / after_ms - 1)
    covered = predicted["low_ms"] <= gain <= predicted["high_ms"]
    print(
        f"{name} {said['before_ms']:7.1f} -> predicted {predicted['step_ms']:7.1f}, measured {after_ms:7.1f} ms"
        f" ({error:+.2f} %); gain {gain:6.1f} in {predicted['low_ms']:6.1f} .. {predicted['high_ms']:6.1f}: {covered}",
        flush=True,
    )
    return {"error": abs(error), "covered": float(covered)}


def summary(found: Sequence[dict[str, float]]) -> dict[str, float]:
    told = [each for each in found if each]
    return {
        "cases": len(found),
        "predicted": len(told),
        "median_error_percent": round(statistics.median(each["error"] for each in told), 3),
        "worst_error_percent": round(max(each["error"] for each in told), 3),
        "interval_coverage": round(statistics.fmean(each["covered"] for each in told), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="one base by its name")
    parser.add_argument("-o", "--output", type=Path, help="where recordings and predictions are kept")
    chosen = parser.parse_args()
    if why := available():
        sys.exit(why)
    bases = [base for base in BASES if chosen.only in (None, base.name)]
    with tempfile.TemporaryDirectory() as scratch:
        folder = chosen.output or Path(scratch)
        said = [predictions(base, run(base, folder / base.name.replace("/", "-"))) for base in bases]
        (folder / "predictions.json").write_text(json.dumps(said, indent=2) + "\n")
        found = [
            compared(each, step_ms(run(base, folder / f"{base.name.replace('/', '-')}-{number}", each["change"])))
            for base, answers in zip(bases, said, strict=True)
            for number, each in enumerate(answers)
        ]
    print(json.dumps(summary(found)))


if __name__ == "__main__":
    main()
