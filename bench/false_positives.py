"""How often lossy compression is advised where networks are fast: the advisor on simulated data-centre jobs.

    python bench/false_positives.py [--every N] [--seed N]

Jobs are those of tests/analyzers/data_centres.py (100 Gbit/s and more), each read as a recording. The last line is one
JSON object.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import Counter
from itertools import islice
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from analyzers.data_centres import Setup, compute_bound, setups, straggler  # noqa: E402
from synthetic import write_run  # noqa: E402

from commlens import analyze, open_run  # noqa: E402
from commlens.analyzers.advisor.advise import TECHNIQUES  # noqa: E402
from commlens.analyzers.advisor.technique import MORE  # noqa: E402
from commlens.analyzers.report import Report  # noqa: E402

STRONG = {technique.id for technique in TECHNIQUES if technique.loses == MORE}


def report_of(setup: Setup) -> Report:
    with tempfile.TemporaryDirectory() as folder:
        return analyze(open_run(write_run(Path(folder) / "run", setup.truths())))


def advised(report: Report) -> list[str]:
    return [each.id for each in report.considered if each.verdict == "advised"]


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--every", type=int, default=1, help="only every N-th job of the grid")
    p.add_argument("--seed", type=int, default=0)
    args = p.parse_args()
    counted: Counter[str] = Counter()
    strong = jobs = 0
    for setup in islice(setups(args.seed), 0, None, args.every):
        names = advised(report_of(setup))
        counted.update(names)
        strong += bool(STRONG & set(names))
        jobs += 1
        print(
            f"{setup.name}: step {setup.step_ms:.1f} ms, exposed {100 * setup.exposed:.1f} %: {', '.join(names) or '-'}"
        )
    late = report_of(straggler(args.seed))
    print(dict(counted))
    print(
        json.dumps(
            {
                "setups": jobs,
                "strong_compression_percent": round(100 * strong / jobs, 2),
                "half_percent": round(100 * counted["half-gradients"] / jobs, 2),
                "compute_bound_suggestions": len(advised(report_of(compute_bound(args.seed)))),
                "straggler_first": late.findings[0].id == "straggler-rank",
                "straggler_lossy": len([e for e in late.considered if e.verdict == "advised" and e.risk == "lossy"]),
            }
        )
    )


if __name__ == "__main__":
    main()
