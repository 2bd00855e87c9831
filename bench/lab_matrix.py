"""The lab's matrix: planted faults of random size against what commlens finds.

    python bench/lab_matrix.py [--seeds 3] [--first-seed 0] [--only NAME] [--keep FOLDER]

Each case is a real torchrun job on Gloo over a synthetic link (`tests/lab`), recorded and analysed. "Planned" is
the size of the fault in ms a step, "visible" the same read from the recorded columns without commlens' analysis.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from lab import seen
from lab.faults import CATALOGUE, scenario
from lab.run import record, recorded
from lab.scenario import Scenario, verdict

import commlens

ROW = "{:<24} {:>4} {:<16} {:>8} {:>8} {:>7}  {:<28} {:<28} {:<24} {}"


@dataclass(frozen=True)
class Case:
    """One row of the table; `wrong` is "" where the answer is right."""

    case: Scenario
    seed: int
    step_ms: float | None = None
    visible_ms: float | None = None
    found: str = "-"
    who: str = "-"
    wrong: str = ""


def run_case(name: str, seed: int, folder: Path, reuse: bool) -> Case:
    """Records and analyses one case; whatever goes wrong is in `wrong`."""
    case = scenario(name, seed)
    try:
        run = (recorded(case, folder) if reuse else None) or record(case, folder)
        groups = seen.groups(run)
        report = commlens.analyze(commlens.open_run(run))
        top = report.findings[0] if report.findings else None
        return Case(
            case,
            seed,
            seen.step_ms(run),
            case.visible_ms(run) if case.visible_ms is not None and case.ends == "exits" else None,
            top.id if top else "-",
            f"ranks {list(top.ranks)} group {top.group}" if top else "-",
            verdict(case.expected, report, groups),
        )
    except Exception as error:  # noqa: BLE001 - a case that fails is a wrong one
        return Case(case, seed, wrong=f"{type(error).__name__}: {error}")


def show(row: Case) -> None:
    case = row.case
    share = f"{100 * case.share:.1f} %" if case.share is not None else "-"
    expected = "/".join(case.expected.ids) or "nothing"
    if case.expected.ranks is not None or case.expected.members is not None:
        expected += f" {list(case.expected.members or case.expected.ranks or ())}"
    print(
        ROW.format(
            case.name, row.seed, case.job, _ms(case.planned_ms), _ms(row.visible_ms), share, expected, row.found,
            row.who, "right" if not row.wrong else f"WRONG {' '.join(row.wrong.split())[:300]}",
        ),
        flush=True,
    )  # fmt: skip


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def summary(rows: list[Case], seconds: float) -> dict[str, Any]:
    """Precision: right ones among the answers that name a cause; recall: right ones among the planted causes."""
    named = [row for row in rows if row.found != "-"]
    planted = [row for row in rows if row.case.expected.ids]
    right = sum(not row.wrong for row in planted)
    return {
        "precision": round(right / len(named), 3) if named else None,
        "recall": round(right / len(planted), 3) if planted else None,
        "cases": len(rows),
        "right": sum(not row.wrong for row in rows),
        "healthy_false_findings": sum(row.found != "-" for row in rows if not row.case.expected.ids),
        "seconds": round(seconds, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="cases of each fault")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--only", action="append", choices=sorted(CATALOGUE), help="this fault; may be repeated")
    parser.add_argument("--keep", type=Path, help="keep the recorded runs here")
    parser.add_argument("--reuse", action="store_true", help="analyse what --keep has kept, record what it lacks")
    parser.add_argument("--jobs", type=int, default=1, help="cases at a time; more is faster and noisier")
    options = parser.parse_args()
    started = time.monotonic()
    print(ROW.format("fault", "seed", "job", "planned", "visible", "share", "expected", "found", "who", "verdict"))
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    cases = [(name, seed) for seed in seeds for name in options.only or CATALOGUE]
    rows = []
    with tempfile.TemporaryDirectory() as temporary, ThreadPoolExecutor(options.jobs) as pool:
        folder = options.keep or Path(temporary)
        for row in pool.map(lambda case: run_case(*case, folder / f"{case[0]}-{case[1]}", options.reuse), cases):
            rows.append(row)
            show(row)
    print(json.dumps(summary(rows, time.monotonic() - started)))


if __name__ == "__main__":
    main()
