"""The lab's second matrix: faults on emulated hosts, with true and with wrong clocks, against what commlens finds.

    sudo python bench/lab_hosts.py [--only slow-pair --only healthy] [--keep FOLDER]

Each case is a real Gloo job in network namespaces (`tests/lab/hosts.py`), its links shaped, boot ids and clocks faked,
recorded and analysed. Needs root. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from lab import seen
from lab.host_faults import CATALOGUE, HostScenario, record
from lab.hosts import available
from lab.scenario import verdict

import commlens

ROW = "{:<32} {:>9} {:>8} {:<22} {:<22} {:<28} {:>12} {}"


def run_case(case: HostScenario, folder: Path) -> dict[str, Any]:
    """Records and analyses one case; `wrong` is "" where the answer is right."""
    try:
        run = record(case, folder)
        report = commlens.analyze(commlens.open_run(run))
        top = report.findings[0] if report.findings else None
        return {
            "visible": case.visible_ms(run) if case.visible_ms is not None else None,
            "found": top.id if top else "-",
            "who": f"ranks {list(top.ranks)} group {top.group}" if top else "-",
            "clock": report.coverage.clock.uncertainty_us,
            "wrong": verdict(case.expected, report, seen.groups(run)),
        }
    except Exception as error:  # noqa: BLE001 - a case that fails is a wrong one
        return {"visible": None, "found": "-", "who": "-", "clock": None, "wrong": f"{type(error).__name__}: {error}"}


def show(case: HostScenario, row: dict[str, Any]) -> None:
    expected = "/".join(case.expected.ids) or "nothing"
    visible = "-" if row["visible"] is None else f"{row['visible']:.2f} ms"
    clock = "-" if row["clock"] is None else f"+-{row['clock']:.0f} us"
    share = f"{100 * case.magnitude:.0f} %" if case.magnitude else "-"
    verdict_ = "right" if not row["wrong"] else f"WRONG {' '.join(row['wrong'].split())[:200]}"
    print(ROW.format(case.name, visible, share, expected, row["found"], row["who"], clock, verdict_), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", help="cases whose name contains this; may be repeated")
    parser.add_argument("--keep", type=Path, help="keep the recorded runs here")
    options = parser.parse_args()
    if reason := available():
        sys.exit(f"no emulated hosts here: {reason}")
    cases = [c for name, c in CATALOGUE.items() if not options.only or any(part in name for part in options.only)]
    print(ROW.format("fault", "visible", "share", "expected", "found", "who", "clock", "verdict"))
    began, rows = time.monotonic(), []
    with tempfile.TemporaryDirectory() as temporary:
        for case in cases:
            rows.append(run_case(case, (options.keep or Path(temporary)) / case.name))
            show(case, rows[-1])
    healthy = [row for case, row in zip(cases, rows, strict=True) if not case.expected.ids]
    result = {
        "cases": len(rows),
        "right": sum(not row["wrong"] for row in rows),
        "healthy_false_findings": sum(row["found"] != "-" for row in healthy),
        "seconds": round(time.monotonic() - began, 1),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
