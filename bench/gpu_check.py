"""Everything that only a real GPU can prove, in one command of less than eight minutes.

    python bench/gpu_check.py -o gpu_check.json [--nccl libnccl.so.2] [--quick]

On a machine with one NVIDIA GPU or more: NCCL jobs of one rank, and of two and
four ranks (on one GPU too, with NCCL 2.30 or newer), each recorded by the native
recorder, the NCCL plugin, a deep window and the counters at once. What they say
of the same collectives is laid side by side. A check that fails is an entry with
its reason, never the end of the others. `--device cpu` runs what needs no GPU, on
Gloo: that is how the script itself is tested.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve()
ROOT = HERE.parent.parent
JOB = HERE.with_name("gpu_job.py")
sys.path.insert(0, str(ROOT))
WINDOW_AT, WINDOW_STEPS = 10, 3


class Checks:
    """Runs the checks and keeps what they say."""

    def __init__(self, device: str, nccl: str | None, folder: Path, cache: Path) -> None:
        self.device, self.nccl, self.folder = device, nccl, folder
        self.answers: dict[str, Any] = {}
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("COMMLENS")},
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
            "COMMLENS_CACHE": str(cache),
        }
        if nccl:
            self.environment["LD_PRELOAD"] = nccl
        if device == "cuda":
            # Several ranks on one GPU: NCCL 2.30's switch, and few channels each, that their kernels fit side by side.
            self.environment |= {"NCCL_MULTI_RANK_GPU_ENABLE": "1", "NCCL_NVLS_ENABLE": "0", "NCCL_DEBUG": "WARN"}

    def run(self, name: str, check: Any, *args: Any) -> None:
        started = time.monotonic()
        try:
            answer = check(self, *args)
        except Exception as error:  # noqa: BLE001 - one check that fails must not cost the others
            answer = {"ok": False, "why": f"{type(error).__name__}: {str(error)[-1500:]}"}
        answer["seconds"] = round(time.monotonic() - started, 1)
        self.answers[name] = answer
        print(f"{'ok  ' if answer.get('ok') else 'FAIL'} {name}: {json.dumps(answer)[:400]}", flush=True)

    def job(self, work: str, world: int, steps: int, env: dict[str, str], name: str) -> Path:
        """Runs a job and returns its folder of answers; its run is beside them, in `runs`."""
        out = self.folder / name
        out.mkdir()
        env = {**self.environment, **env}
        if self.device == "cuda" and world > 1:
            env.setdefault("NCCL_MAX_CTAS", "4")
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(world)]
        command = [*launcher, str(JOB), work, "--device", self.device, "--steps", str(steps), "--out", str(out)]
        done = subprocess.run(command, env=env, cwd=out, capture_output=True, text=True, timeout=120, check=False)
        (out / "stderr").write_text(done.stderr)
        if done.returncode:
            lines = [
                line for line in done.stderr.splitlines() if "rror" in line or "WARN" in line or "commlens" in line
            ]
            raise RuntimeError(f"exit code {done.returncode}: " + " | ".join(lines[-8:]))
        return out

    def recorded(self, work: str, world: int, steps: int, name: str, **env: str) -> Path:
        recording = {
            "COMMLENS": str(self.folder / name / "runs"),
            "COMMLENS_RECORDER": "native",
            "COMMLENS_COUNTERS": "100",
            "COMMLENS_WINDOW": f"steps={WINDOW_STEPS},at={WINDOW_AT}",
        }
        return self.job(work, world, steps, {**recording, **env}, name)


def machine(checks: Checks) -> dict[str, Any]:
    import torch

    answer: dict[str, Any] = {
        "ok": True,
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }
    if checks.device == "cuda":
        asked = "name,driver_version,memory.total,compute_cap"
        smi = subprocess.run(
            ["nvidia-smi", f"--query-gpu={asked}", "--format=csv,noheader"], capture_output=True, text=True
        )
        version = "import torch; print(*torch.cuda.nccl.version(), sep='.')"
        nccl = subprocess.run([sys.executable, "-c", version], env=checks.environment, capture_output=True, text=True)
        answer |= {"gpus": smi.stdout.strip().splitlines(), "nccl": nccl.stdout.strip(), "preloaded": bool(checks.nccl)}
    return answer


def build(checks: Checks) -> dict[str, Any]:
    command = [sys.executable, "-m", "commlens", "build", "--format", "json"]
    done = subprocess.run(command, env=checks.environment, capture_output=True, text=True, timeout=300, check=False)
    parts = json.loads(done.stdout)
    return {"ok": all(part["ok"] for part in parts.values()), **{f"{k}_why": v["why"] for k, v in parts.items()},
            "tables": parts["nccl_plugin"]["tables"]}  # fmt: skip


def unchanged(checks: Checks, work: str, world: int) -> dict[str, Any]:
    """The same digests without and with everything that records."""
    plain = checks.job(work, world, 6, {}, f"plain-{work}-{world}")
    recorded = checks.recorded(work, world, 6, f"unchanged-{work}-{world}", COMMLENS_WINDOW="steps=2,at=2")
    digests = [[_answer(out, work, rank)["digest"] for rank in range(world)] for out in (plain, recorded)]
    return {"ok": digests[0] == digests[1], "digests_equal": digests[0] == digests[1]}


def _answer(out: Path, work: str, rank: int) -> dict[str, Any]:
    return json.loads((out / f"{work}-{rank}.json").read_text())


def recording(checks: Checks, work: str, world: int) -> dict[str, Any]:
    """One recorded job: who saw what, what the report says, and the plugin's times against Kineto's."""
    from commlens.analyzers import analyze
    from commlens.trace import open_run

    out = checks.recorded(work, world, 30, f"{work}-{world}")
    run = open_run(out / "runs")
    rows = [row for rank in run.ranks.values() for row in rank.table("collectives").to_pylist()]
    info = run.ranks[min(run.ranks)].info
    report = analyze(run).to_dict()
    said = [line for line in (out / "stderr").read_text().splitlines() if line.startswith("commlens")]
    answer = {
        "ok": bool(rows) and len(run.ranks) == world,
        "rows": len(rows),
        "recorder": info["hooks"].get("recorder"),
        "timing": dict(Counter(row["timing"] for row in rows)),
        "device_ops": sum(rank.table("device_ops").num_rows for rank in run.ranks.values()),
        "kernels": sum(rank.table("kernels").num_rows for rank in run.ranks.values()),
        "windows": info.get("windows"),
        "step_ms": _answer(out, work, 0).get("step_ms"),
        "time_budget": {key: value for key, value in (report["time_budget"] or {}).items() if key != "per_rank"},
        "coverage": report["coverage"],
        "overhead": report["overhead"],
        "abstentions": [f"{each['analysis']}: {each['reason']}" for each in report["abstentions"]],
        "findings": [each["id"] for each in report["findings"]],
        "notes": run.notes,
        "said": said,
    }
    if checks.device == "cuda":
        answer["plugin_against_kineto"] = plugin_against_kineto(out / "runs")
        answer["ok"] = answer["ok"] and answer["device_ops"] > 0 and answer["timing"].get("device", 0) > 0
    return answer


def plugin_against_kineto(runs: Path) -> dict[str, Any]:
    """Device times of the same collectives: what is asked is 2 % or 2 us."""
    times = {}
    for name, left_out in (("plugin", "window-*"), ("kineto", "nccl-*.events")):
        copy = runs.parent / f"only-{name}"
        shutil.copytree(runs, copy)
        for path in copy.rglob(left_out):
            path.unlink()
        times[name] = _device_times(copy)
    both = times["plugin"].keys() & times["kineto"].keys()
    off, shares, starts = [], [], []
    for key in both:
        (start, end), (other_start, other_end) = times["plugin"][key], times["kineto"][key]
        off.append(abs((end - start) - (other_end - other_start)) / 1e3)
        shares.append(100 * off[-1] * 1e3 / max(1, other_end - other_start))
        starts.append((start - other_start) / 1e3)
    within = [us <= 2 or share <= 2 for us, share in zip(off, shares, strict=True)]
    quantile = lambda values, q: round(sorted(values)[int(q * (len(values) - 1))], 3) if values else None  # noqa: E731
    return {
        "compared": len(both),
        "only_plugin": len(times["plugin"]),
        "only_kineto": len(times["kineto"]),
        "within_2_percent_or_2_us": round(sum(within) / len(within), 4) if within else None,
        "duration_off_us_p50": quantile(off, 0.5),
        "duration_off_us_p95": quantile(off, 0.95),
        "duration_off_percent_p95": quantile(shares, 0.95),
        "start_off_us_p50": quantile(starts, 0.5),
        "start_off_us_p05": quantile(starts, 0.05),
        "start_off_us_p95": quantile(starts, 0.95),
    }


def _device_times(runs: Path) -> dict[tuple[int, int], tuple[int, int]]:
    from commlens.trace import open_run

    return {
        (number, row["event"]): (row["started_ns"], row["completed_ns"])
        for number, rank in open_run(runs).ranks.items()
        for row in rank.table("collectives").to_pylist()
        if row["timing"] == "device" and row["started_ns"] is not None and row["completed_ns"] is not None
    }


def calls(checks: Checks, world: int) -> dict[str, Any]:
    """Every kind of call: how many rows there are of each, and with device times."""
    from commlens.trace import open_run

    out = checks.recorded("ops", world, 20, f"ops-{world}")
    rows = open_run(out / "runs").ranks[0].table("collectives").to_pylist()
    seen = Counter(row["op"] for row in rows)
    timed = Counter(row["op"] for row in rows if row["completed_ns"] is not None)
    return {"ok": bool(rows), "rows": dict(seen), "with_an_end": dict(timed)}


def counters(checks: Checks) -> dict[str, Any]:
    """Which counters answer here, and what they moved by during the jobs before."""
    from commlens.trace import open_run

    out = checks.recorded("ddp", 1 if checks.device == "cuda" else 2, 100, "counters")
    run = open_run(out / "runs")
    rank = next(rank for rank in run.ranks.values() if rank.table("counters").num_rows)
    spans: dict[str, tuple[int, int]] = {}
    for row in rank.table("counters").to_pylist():
        key = f"{row['device']} {row['counter']}"
        low, high = spans.get(key, (row["value"], row["value"]))
        spans[key] = (min(low, row["value"]), max(high, row["value"]))
    return {
        "ok": bool(spans),
        "links": rank.info.get("links"),
        "sampling": rank.info.get("counters"),
        "moved": {key: high - low for key, (low, high) in sorted(spans.items())},
    }


def overhead(checks: Checks) -> dict[str, Any]:
    """Steps on and off in turn, beside torch.profiler: `recorder_overhead.py` on this device."""
    command = [sys.executable, str(HERE.with_name("recorder_overhead.py")), "--quick", "--only", "step",
               "--device", checks.device, "--ranks", "1" if checks.device == "cuda" else "2"]  # fmt: skip
    done = subprocess.run(command, env=checks.environment, capture_output=True, text=True, timeout=240, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr or done.stdout)
    return {"ok": True, **json.loads(done.stdout.strip().splitlines()[-1])}


def graphs(checks: Checks) -> dict[str, Any]:
    """What is seen of collectives in a replayed CUDA graph."""
    from commlens.analyzers import analyze
    from commlens.trace import open_run

    out = checks.recorded("graph", 1, 20, "graph")
    run = open_run(out / "runs")
    rank = run.ranks[0]
    ops = rank.table("device_ops").to_pylist()
    return {
        "ok": bool(rank.info.get("cuda_graphs")),
        "cuda_graphs": rank.info.get("cuda_graphs"),
        "plugin_rows_of_graphs": sum(bool(op["graph"]) for op in ops),
        "abstentions": [f"{each['analysis']}: {each['reason']}" for each in analyze(run).to_dict()["abstentions"]],
    }


def flight_recorder(checks: Checks) -> dict[str, Any]:
    """Torch's Flight Recorder beside us: the same collectives?"""
    from commlens.trace import open_run

    world = 2 if "error" not in checks.answers.get("ddp-2", {}) else 1
    out = checks.recorded("flight", world, 10, "flight", TORCH_NCCL_ENABLE_TIMING="1")
    ours = open_run(out / "runs").ranks[0].table("collectives").num_rows
    theirs = open_run([out / f"nccl_trace_rank_{rank}" for rank in range(world)]).ranks[0].table("collectives").num_rows
    return {"ok": theirs > 0, "ours": ours, "flight_recorder": theirs}


def inspector(checks: Checks) -> dict[str, Any]:
    """NVIDIA's Inspector, where its library is at hand."""
    import torch

    beside = [Path(torch.__file__).parent.parent / "nvidia", Path("/usr/lib"), Path("/usr/local")]
    found = [os.fspath(path) for folder in beside for path in folder.rglob("libnccl-profiler-inspector.so")]
    if not found:
        return {"ok": True, "present": False}
    logs = checks.folder / "inspector-logs"
    env = {"NCCL_PROFILER_PLUGIN": found[0], "NCCL_INSPECTOR_ENABLE": "1", "NCCL_INSPECTOR_DUMP_DIR": str(logs)}
    checks.job("ddp", 2, 10, env, "inspector")
    return {"ok": any(logs.iterdir()), "present": True, "files": len(list(logs.iterdir()))}


def summary(answers: dict[str, Any]) -> dict[str, Any]:
    failed = [name for name, answer in answers.items() if not answer["ok"]]
    against = [a["plugin_against_kineto"] for a in answers.values() if "plugin_against_kineto" in a]
    within = [each["within_2_percent_or_2_us"] for each in against if each["within_2_percent_or_2_us"] is not None]
    return {
        "checks": len(answers),
        "failed": len(failed),
        "failed_names": ",".join(failed),
        "plugin_within_2_percent_or_2_us": round(statistics.mean(within), 4) if within else None,
        "seconds": round(sum(answer["seconds"] for answer in answers.values()), 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, help="where the whole answer goes, as JSON")
    parser.add_argument("--nccl", help="a libnccl.so.2 to load before torch's own")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--cache", type=Path, help="where compiled parts are kept; default: compiled anew")
    parser.add_argument("--quick", action="store_true", help="one job of each kind")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        checks = Checks(options.device, options.nccl, Path(folder), options.cache or Path(folder, "cache"))
        checks.run("machine", machine)
        checks.run("build", build)
        on_gpu = options.device == "cuda"
        worlds = ((1, 2, 4) if on_gpu else (2,)) if not options.quick else (2,)
        for world in worlds:
            for work in ("ddp", "fsdp2") if not options.quick else ("ddp",):
                checks.run(f"{work}-{world}", recording, work, world)
        checks.run("calls", calls, 2)
        if not options.quick:
            checks.run("unchanged", unchanged, "ddp", 2)
            checks.run("counters", counters)
            checks.run("overhead", overhead)
            checks.run("flight_recorder", flight_recorder)
        if on_gpu:
            checks.run("graphs", graphs)
            checks.run("inspector", inspector)
    if options.output:
        options.output.write_text(json.dumps(checks.answers, indent=1))
    print(json.dumps(summary(checks.answers)))


if __name__ == "__main__":
    main()
