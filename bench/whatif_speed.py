"""How long what-if takes on a run of many ranks: whole commands, the interpreter's start included.

    python bench/whatif_speed.py [--ranks 64] [--rounds 3]

The run is a simulated ResNet-50 job (tests/analyzers/data_centres.py) of 50 steps. The last line is one JSON object of
medians.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from analyzers.data_centres import MACHINES, job_on, truths_of  # noqa: E402
from analyzers.model_tables import resnet  # noqa: E402
from synthetic import write_run  # noqa: E402

STEPS = 52
ASKED = {
    "whatif_s": ("--set", "ddp.bucket_cap_mb=50"),
    "sweep_s": ("--sweep", "ddp.bucket_cap_mb=1:200"),
    "all_s": ("--all",),
}


def seconds(run: Path, arguments: tuple[str, ...]) -> float:
    """A whole command."""
    begun = time.perf_counter()
    command = [sys.executable, "-m", "commlens", "whatif", str(run), *arguments, "--format", "json"]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    taken = time.perf_counter() - begun
    predicted = [each["predicted"] is not None for each in json.loads(done.stdout)["scenarios"]]
    assert any(predicted), done.stdout
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    scatter = np.exp(0.005 * np.random.default_rng(0).standard_normal((args.ranks, STEPS)))
    job = job_on(MACHINES[0], args.ranks, resnet(50), 64)
    with tempfile.TemporaryDirectory() as folder:
        hosts = max(args.ranks // 8, 1)
        run = write_run(Path(folder) / "run", truths_of(job, scatter, (0.0,) * args.ranks, hosts))
        found = {
            name: statistics.median(seconds(run, asked) for _ in range(args.rounds)) for name, asked in ASKED.items()
        }
    print(json.dumps({"ranks": args.ranks} | {name: round(each, 2) for name, each in found.items()}))


if __name__ == "__main__":
    main()
