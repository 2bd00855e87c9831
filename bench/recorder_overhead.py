"""What recording costs, measured side by side in one run.

    python bench/recorder_overhead.py [--quick]

1. One collective: a 256-float all_reduce in a one-rank Gloo group on one pinned
   core, blocks with and without the hooks in turn; medians of the issuing
   thread's wall and CPU time.
2. One step: a two-rank DDP job whose steps take 50 ms or more, blocks of steps
   with no hooks, with recording, and under torch.profiler in turn.
3. The trace's size and the recorder's memory over many collectives.
4. `commlens report` on 8 ranks x 200 steps x 50 collectives, whole process.

"Off" means that the hooks are taken out, not that they step aside. That is safe
only here, where nothing is in flight between blocks.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve()
ROOT = HERE.parent.parent


def take_hooks_out(saved_wait) -> None:
    from torch._C._distributed_c10d import Work

    from commlens.profiler import collectives

    for library in collectives._libraries:
        library._destroy()
    collectives._libraries.clear()
    Work.wait = saved_wait


def start_recorder(folder: str):
    from commlens.profiler import live, recorder

    recorder.start(folder)
    running, live.recorder = live.recorder, None
    return running


def one_collective(rounds: int, folder: str) -> dict[str, float]:
    import torch
    import torch.distributed as dist
    from torch._C._distributed_c10d import Work

    from commlens.profiler import collectives, live

    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    saved_wait = Work.wait
    tensor = torch.ones(256)
    running = start_recorder(folder)
    kinds = {
        "sync": lambda: dist.all_reduce(tensor),
        "async": lambda: dist.all_reduce(tensor, async_op=True).wait(),
    }
    times: dict[tuple[str, bool, str], list[int]] = {}
    for turn in range(rounds):
        for on in (turn % 2 == 0, turn % 2 == 1):
            live.recorder = running if on else None
            if on:
                collectives.install()
            else:
                take_hooks_out(saved_wait)
            for kind, call in kinds.items():
                timed(call, times.setdefault((kind, on, "wall"), []), times.setdefault((kind, on, "cpu"), []))
    live.recorder = None
    running.stop()
    result = {}
    for kind in kinds:
        for clock in ("wall", "cpu"):
            off, on = (statistics.median(times[kind, on, clock]) / 1e3 for on in (False, True))
            print(f"all_reduce {kind} {clock}: {off:.2f} us without, {on:.2f} us with, {on - off:+.2f} us")
            result[f"{kind}_{clock}"] = on - off
    return result


def timed(call, wall: list[int], cpu: list[int], calls: int = 300) -> None:
    for _ in range(20):
        call()
    for _ in range(calls):
        cpu_from, wall_from = time.thread_time_ns(), time.perf_counter_ns()
        call()
        wall.append(time.perf_counter_ns() - wall_from)
        cpu.append(time.thread_time_ns() - cpu_from)


def one_step(blocks: int, steps: int, folder: str) -> None:
    """A rank of the DDP job: rank 0 prints one line of JSON."""
    import torch
    import torch.distributed as dist
    from torch._C._distributed_c10d import Work
    from torch.nn.parallel import DistributedDataParallel

    from commlens.profiler import collectives, live

    dist.init_process_group("gloo")
    torch.manual_seed(0)
    layers = [layer for _ in range(8) for layer in (torch.nn.Linear(1024, 1024), torch.nn.ReLU())]
    model = DistributedDataParallel(torch.nn.Sequential(*layers), bucket_cap_mb=10)
    optimizer = torch.optim.AdamW(model.parameters())
    batch = torch.randn(128, 1024)

    def step() -> None:
        optimizer.zero_grad()
        model(batch).square().mean().backward()
        optimizer.step()

    saved_wait = Work.wait
    running = start_recorder(folder)
    live.recorder = running
    for _ in range(6):
        step()
    walls: dict[str, list[list[float]]] = {"off": [], "on": [], "profiler": []}
    cpus: dict[str, list[float]] = {"off": [], "on": [], "profiler": []}
    stops = []
    for turn in range(blocks):
        order = ("off", "on", "profiler") if turn % 2 == 0 else ("profiler", "on", "off")
        for mode in order:
            if mode == "on":
                live.recorder = running
                collectives.install()
            else:
                live.recorder = None
                take_hooks_out(saved_wait)
            profiler = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU])
            if mode == "profiler":
                profiler.start()
            dist.barrier()
            step()
            cpu_from, block = time.process_time(), []
            for _ in range(steps):
                started = time.perf_counter()
                step()
                block.append(time.perf_counter() - started)
            cpus[mode].append((time.process_time() - cpu_from) / steps)
            walls[mode].append(block)
            if mode == "profiler":
                started = time.perf_counter()
                profiler.stop()
                stops.append((time.perf_counter() - started) / (steps + 1))
    live.recorder = None
    running.stop()
    if dist.get_rank() == 0:
        medians = {mode: [statistics.median(block) for block in of] for mode, of in walls.items()}
        print(json.dumps({"medians": medians, "cpu": cpus, "profiler_stop": statistics.median(stops)}))
    dist.destroy_process_group()


def many_collectives(calls: int, record: bool, folder: str) -> None:
    """One rank issuing `calls` collectives; prints its peak memory and, recorded, the trace's size."""
    import torch
    import torch.distributed as dist

    from commlens.profiler import live, recorder

    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    if record:
        recorder.start(folder)
    tensor = torch.ones(256)
    for _ in range(calls):
        dist.all_reduce(tensor)
    running = live.recorder
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    dropped = running.slots.dropped if running else 0
    recorder.finish()
    size = sum(path.stat().st_size for path in Path(folder).rglob("*.arrows"))
    print(json.dumps({"peak_bytes": peak, "trace_bytes": size, "dropped": dropped}))


def child(*arguments: str, launcher: tuple[str, ...] = ()) -> dict:
    command = [*(launcher or (sys.executable,)), str(HERE), *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    environment.pop("COMMLENS", None)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    lines = done.stdout.strip().splitlines()
    for line in lines[:-1]:
        print(line)
    return json.loads(lines[-1])


def report_seconds(folder: str, runs: int = 5) -> float:
    sys.path.insert(0, str(ROOT / "tests"))
    import synthetic

    synthetic.write_run(Path(folder), {rank: synthetic.training_rank(200, collectives=50) for rank in range(8)})
    times = []
    for _ in range(runs):
        started = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "commlens", "report", folder],
            check=True,
            stdout=subprocess.DEVNULL,
            env=os.environ,
        )
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tenth of the measurements")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    parser.add_argument("--count", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part == "collective":
        print(json.dumps(one_collective(options.count, options.folder)))
    elif options.part == "step":
        one_step(options.count, 10, options.folder)
    elif options.part in ("recorded", "plain"):
        many_collectives(options.count, options.part == "recorded", options.folder)
    else:
        everything(10 if options.quick else 1)


def everything(divisor: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        call = child("--part", "collective", "--count", str(40 // divisor), "--folder", f"{folder}/a")
        launcher = (
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--nproc-per-node",
            "2",
            "--master-port",
            "29577",
        )
        step = child("--part", "step", "--count", str(30 // divisor), "--folder", f"{folder}/b", launcher=launcher)
        calls = 400_000 // divisor
        plain = child("--part", "plain", "--count", str(calls), "--folder", f"{folder}/c")
        recorded = child("--part", "recorded", "--count", str(calls), "--folder", f"{folder}/d")
        report_s = report_seconds(f"{folder}/e")
    off, on, profiled = (statistics.median(step["medians"][mode]) for mode in ("off", "on", "profiler"))
    gains = {mode: paired_percent(step["medians"], mode) for mode in ("on", "profiler")}
    cpu = {
        mode: 100 * (statistics.median(step["cpu"][mode]) / statistics.median(step["cpu"]["off"]) - 1) for mode in gains
    }
    print(f"DDP step: {off * 1e3:.1f} ms off, {on * 1e3:.1f} ms recorded ({gains['on']:+.2f} % paired), "
          f"{profiled * 1e3:.1f} ms under torch.profiler ({gains['profiler']:+.2f} %), "
          f"its stop adds {step['profiler_stop'] * 1e3:.1f} ms a step")  # fmt: skip
    print(
        json.dumps(
            {
                "python_us_per_collective": round(call["sync_wall"], 2),
                "python_cpu_us_per_collective": round(call["sync_cpu"], 2),
                "python_async_us_per_collective": round(call["async_wall"], 2),
                "step_ms_off": round(off * 1e3, 2),
                "percent_of_step": round(gains["on"], 2),
                "cpu_percent_of_step": round(cpu["on"], 2),
                "torch_profiler_percent_of_step": round(gains["profiler"], 2),
                "torch_profiler_with_stop_percent_of_step": round(
                    gains["profiler"] + 100 * step["profiler_stop"] / off, 2
                ),
                "trace_bytes_per_collective": round(recorded["trace_bytes"] / calls, 1),
                "recorder_peak_mib": round((recorded["peak_bytes"] - plain["peak_bytes"]) / 2**20, 1),
                "dropped": recorded["dropped"],
                "report_s": round(report_s, 2),
            }
        )
    )


def paired_percent(medians: dict[str, list[float]], mode: str) -> float:
    """Median over the rounds of one mode's block against the same round's block without hooks."""
    pairs = zip(medians[mode], medians["off"], strict=True)
    return 100 * (statistics.median(with_it / without for with_it, without in pairs) - 1)


if __name__ == "__main__":
    main()
