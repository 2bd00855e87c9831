"""Published numbers, and what the simulator and its optimiser make of the same: a table for people.

    python bench/published.py [--traces FOLDER]

Merging gradients: MG-WFBP's links and rule on real models' tables. Stragglers: ByteDance's two traces (OSDI'25
artifact) where they are at hand. Data centres: how much of the step 350 simulated set-ups expose. The same is asserted
in tests/analyzers/test_published.py, test_published_stragglers.py and test_data_centres.py. The last line is one JSON
object.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import numpy as np  # noqa: E402
from analyzers.data_centres import Job, model_of, setups  # noqa: E402
from analyzers.model_tables import bert, resnet  # noqa: E402
from analyzers.operation_table import NS, Op, pipeline_model, read_operations, usual  # noqa: E402
from analyzers.test_published import LINKS, changed, merged  # noqa: E402
from analyzers.whatif_model import step_ms  # noqa: E402

from commlens.analyzers.whatif.model import Model  # noqa: E402
from commlens.analyzers.whatif.optimum import best_cap, best_caps  # noqa: E402
from commlens.analyzers.whatif.predicted import replay  # noqa: E402
from commlens.analyzers.whatif.steady import Batch, simulate  # noqa: E402

BACKWARD_MS = (20.0, 80.0, 320.0)


def merging() -> dict[str, float]:
    """Each by itself, all in one, MG-WFBP's greedy merging, our best cap and our best list of caps."""
    print("model          alpha ms  ns/byte  backward |     each      one   greedy  our cap our list | list/greedy")
    ratios = []
    for table in (resnet(50), bert()):
        for link in LINKS:
            for backward_ms in BACKWARD_MS:
                of = Job(table, *link, forward_ms=backward_ms / 2, backward_ms=backward_ms)
                model = model_of(of, np.ones((2, 6)))
                base = replay(model)
                cap = best_cap(base)
                caps = best_caps(base, cap)
                assert not isinstance(cap, str)
                assert not isinstance(caps, str)
                theirs = step_ms(merged(model, of))
                plain = [step_ms(changed(model, f"ddp.bucket_cap_mb={size}")) for size in ("1e-6", "1e6")]
                steps = [*plain, theirs, cap.step_ms, caps.step_ms]
                ratios.append(caps.step_ms / theirs)
                numbers = " ".join(f"{step:8.2f}" for step in steps)
                print(
                    f"{table.name:12} {link[0]:9} {link[1]:8} {backward_ms:9} | {numbers} | {ratios[-1]:.5f}",
                    flush=True,
                )
    return {"cases": len(ratios), "best_over_greedy": round(min(ratios), 4), "worst_over_greedy": round(max(ratios), 7)}


def stragglers(traces: Path) -> dict[str, dict[str, float]]:
    """Step as recorded, ideal step, and slowdown, against the published ones."""
    found = {}
    for job in ("AR", "ST"):
        folder = traces / f"bytedance-straggler-{job}"
        if not folder.is_dir():
            print(f"{folder} is not there: left out")
            continue
        operations = read_operations(folder / f"trace-{job}.parquet")
        answer = json.loads((folder / f"ms-{job}.json").read_text())
        tables: list[dict[Op, np.ndarray]] = [operations.seconds, usual(operations)]
        recorded, ideal = (_step_s(pipeline_model(operations, seconds)) for seconds in tables)
        published = {"recorded_s": answer["tori"], "ideal_s": answer["tideal"]}
        published["slowdown"] = published["recorded_s"] / published["ideal_s"]
        ours = {"recorded_s": recorded, "ideal_s": ideal, "slowdown": recorded / ideal}
        for name, value in ours.items():
            print(f"{job} {name:10} {value:9.4f}, published {published[name]:9.4f}: {value / published[name] - 1:+.3%}")
        found[job] = {name: round(100 * abs(value / published[name] - 1), 4) for name, value in ours.items()}
    return found


def _step_s(model: Model) -> float:
    which = np.arange(model.steps)
    return float(simulate(model, Batch(which, np.zeros(which.size, np.int64), np.ones(which.size))).mean()) / NS


def data_centres() -> dict[str, float]:
    """Percent of the step that set-ups expose."""
    exposed = 100 * np.array([setup.exposed for setup in setups()])
    middle, most = np.percentile(exposed, [50, 90])
    hidden = float((exposed < 2).mean())
    print(
        f"{exposed.size} set-ups expose {middle:.1f} % (median), {most:.1f} % (90th percentile); {hidden:.0%} below 2 %"
    )
    return {"setups": exposed.size, "median_exposed_percent": round(middle, 2), "p90_exposed_percent": round(most, 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--traces", type=Path, default=ROOT.parent / "shared" / "traces", help="real traces")
    chosen = parser.parse_args()
    found = {"merging": merging(), "straggler_error_percent": stragglers(chosen.traces), "data_centres": data_centres()}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
