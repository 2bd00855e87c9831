"""What recording costs, measured side by side in one run.

    python bench/recorder_overhead.py [--quick] [--only PART] [--soak 5000000]

Of both recorders, in Python and native (`commlens build` first):

1. One collective: a 256-float all_reduce in a one-rank Gloo group on one pinned
   core, blocks with and without the hooks in turn; medians of the issuing
   thread's wall and CPU time, and of the process's CPU time.
2. One step: two-rank DDP and FSDP2 jobs whose steps take 50 ms or more, blocks of
   steps with no hooks, with recording, and under torch.profiler in turn, its stop
   and export told apart.
3. The trace's size and the recorder's memory over many collectives.
4. `commlens report` on 8 ranks x 200 steps x 50 collectives, whole process.

"Off" means that the hooks are taken out, not that they step aside. That is safe
only here, where nothing is in flight between blocks.
"""

from __future__ import annotations

import argparse
import gc
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


class Hooks:
    """Takes the hooks of a recorder out and puts them in again, for comparison side by side."""

    def __init__(self, running) -> None:
        from torch._C._distributed_c10d import Work

        self.running = running
        self.native = running.collectives.source == "native"
        self.hooked_wait = Work.wait

    def out(self) -> None:
        from torch._C._distributed_c10d import Work

        from commlens.profiler import collectives, live, native_log

        live.recorder = None
        self.running.collectives.close()
        if self.native:
            self.running.collectives._native.uninstall()
            native_log._installed = None
            return
        for library in collectives._libraries:
            library._destroy()
        collectives._libraries.clear()
        Work.wait = PLAIN_WAIT

    def back(self) -> None:
        from commlens.profiler import live

        self.running.collectives.install()
        self.running.collectives.open()
        live.recorder = self.running


def start_recorder(folder: str, kind: str):
    """A recorder of `kind`, python or native, with its hooks in."""
    global PLAIN_WAIT
    from torch._C._distributed_c10d import Work

    PLAIN_WAIT = Work.wait
    os.environ["COMMLENS_RECORDER"] = kind
    from commlens.profiler import live, recorder

    recorder.start(folder)
    assert live.recorder is not None
    source = {"python": "dispatcher"}.get(kind, kind)
    if live.recorder.collectives.source != source:
        sys.exit(f"the {kind} recorder is not there; next: commlens build")
    return live.recorder


def one_collective(rounds: int, folder: str, kind: str) -> dict[str, float]:
    """Added cost of one call, us: of the issuing thread (wall, CPU) and of the whole process (CPU)."""
    import torch
    import torch.distributed as dist

    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    tensor, small = torch.ones(256), torch.ones(4)
    hooks = Hooks(start_recorder(folder, kind))
    kinds = {
        "sync": lambda: dist.all_reduce(tensor),
        "async": lambda: dist.all_reduce(tensor, async_op=True).wait(),
        "add": lambda: small.add_(1),
    }
    times: dict[tuple[str, bool, str], list[float]] = {}
    for turn in range(rounds):
        for on in (turn % 2 == 0, turn % 2 == 1):
            hooks.back() if on else hooks.out()
            for name, call in kinds.items():
                for clock, values in timed(call).items():
                    times.setdefault((name, on, clock), []).extend(values)
    hooks.running.stop()
    result = {}
    for name in kinds:
        for clock in ("wall", "cpu", "process"):
            off, on = (statistics.median(times[name, on, clock]) / 1e3 for on in (False, True))
            print(f"{kind}: {name} {clock}: {off:.2f} us without, {on:.2f} us with, {on - off:+.2f} us")
            result[f"{name}_{clock}"] = on - off
    return result


def timed(call, calls: int = 300) -> dict[str, list[float]]:
    """Wall and CPU time of each call on this thread, and the process's CPU time a call over all of them, ns."""
    wall, cpu = [], []
    for _ in range(20):
        call()
    for _ in range(calls):
        cpu_from, wall_from = time.thread_time_ns(), time.perf_counter_ns()
        call()
        wall.append(time.perf_counter_ns() - wall_from)
        cpu.append(time.thread_time_ns() - cpu_from)
    process_from = time.process_time_ns()
    for _ in range(calls):
        call()
    return {"wall": wall, "cpu": cpu, "process": [(time.process_time_ns() - process_from) / calls]}


def ddp_step(device):
    """A step of a DDP job: eight layers in four buckets."""
    import torch
    from torch.nn.parallel import DistributedDataParallel

    layers = [layer for _ in range(8) for layer in (torch.nn.Linear(1024, 1024), torch.nn.ReLU())]
    return stepping(DistributedDataParallel(torch.nn.Sequential(*layers).to(device), bucket_cap_mb=10), device)


def fsdp2_step(device):
    """A step of an FSDP2 job: eight units."""
    import torch
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    layers = [layer for _ in range(8) for layer in (torch.nn.Linear(1024, 1024), torch.nn.ReLU())]
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    model = torch.nn.Sequential(*layers).to(device)
    for layer in layers[::2]:
        fully_shard(layer, mesh=mesh)
    return stepping(fully_shard(model, mesh=mesh), device)


def stepping(model, device):
    import torch

    optimizer = torch.optim.AdamW(model.parameters())
    batch = torch.randn(128, 1024, device=device)

    def step() -> None:
        optimizer.zero_grad()
        model(batch).square().mean().backward()
        optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize()

    return step


STEPS = {"ddp": ddp_step, "fsdp2": fsdp2_step}


def one_step(job: str, blocks: int, steps: int, folder: str, kind: str, device_name: str) -> None:
    """A rank of a job: rank 0 prints one line of JSON."""
    import torch
    import torch.distributed as dist

    device = torch.device(device_name)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    torch.manual_seed(0)
    step = STEPS[job](device)
    hooks = Hooks(start_recorder(folder, kind))
    for _ in range(6):
        step()
    activities = [torch.profiler.ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    # Each beside blocks without hooks of its own: what torch.profiler leaves behind slows the block after it.
    pairs = {"on": ("off", "on"), "profiler": ("plain", "profiler")}
    order = [mode for pair in pairs.values() for turn in range(blocks) for mode in pair[:: 1 if turn % 2 else -1]]
    walls: dict[str, list[list[float]]] = {mode: [] for pair in pairs.values() for mode in pair}
    cpus: dict[str, list[float]] = {mode: [] for mode in walls}
    extra = []
    for mode in order:
        hooks.back() if mode == "on" else hooks.out()
        profiler = torch.profiler.profile(activities=activities)
        gc.collect()
        dist.barrier()
        cpu_from, block = time.process_time(), []
        if mode == "profiler":
            profiler.start()
        step()
        for _ in range(steps):
            started = time.perf_counter()
            step()
            block.append(time.perf_counter() - started)
        if mode == "profiler":
            started = time.perf_counter()
            profiler.stop()
            profiler.export_chrome_trace(f"{folder}-{dist.get_rank()}.json.gz")
            extra.append((time.perf_counter() - started) / (steps + 1))
        cpus[mode].append((time.process_time() - cpu_from) / (steps + 1))
        walls[mode].append(block)
    hooks.running.stop()
    if dist.get_rank() == 0:
        medians = {mode: [statistics.median(block) for block in of] for mode, of in walls.items()}
        print(json.dumps({"medians": medians, "cpu": cpus, "profiler_stop": statistics.median(extra)}))
    dist.destroy_process_group()


def many_collectives(calls: int, record: bool, folder: str, kind: str) -> None:
    """One rank issuing `calls` collectives, 50 to a step; prints its peak memory and, recorded, the trace's size."""
    import torch
    import torch.distributed as dist

    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    if record:
        start_recorder(folder, kind)
    from commlens.profiler import live, recorder

    weight = torch.ones(256, requires_grad=True)
    optimizer = torch.optim.SGD([weight], lr=0.0)
    tensor = torch.ones(256)
    for _ in range(calls // 50):
        for _ in range(50):
            dist.all_reduce(tensor)
        weight.sum().backward()
        optimizer.step()
    running = live.recorder
    recorder.finish()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    size = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
    print(json.dumps({"peak_bytes": peak, "trace_bytes": size, "dropped": dropped(folder) if running else 0}))


def dropped(folder: str) -> int:
    from commlens.trace import open_run

    return int(open_run(folder).ranks[0].columns("overhead", ["dropped"])["dropped"].sum())


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
    parser.add_argument("--soak", type=int, default=400_000, metavar="N", help="collectives of part 3 (a day: 5000000)")
    parser.add_argument("--only", choices=("collective", "step", "soak", "report"), help="one part")
    parser.add_argument("--recorder", choices=("python", "native"), help="one of the two")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="of part 2")
    parser.add_argument("--ranks", type=int, default=2, help="of part 2")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    parser.add_argument("--job", choices=STEPS, help=argparse.SUPPRESS)
    parser.add_argument("--kind", help=argparse.SUPPRESS)
    parser.add_argument("--count", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part == "collective":
        print(json.dumps(one_collective(options.count, options.folder, options.kind)))
    elif options.part == "step":
        one_step(options.job, options.count, 10, options.folder, options.kind, options.device)
    elif options.part in ("recorded", "plain"):
        many_collectives(options.count, options.part == "recorded", options.folder, options.kind)
    else:
        everything(10 if options.quick else 1, options)


def everything(divisor: int, options: argparse.Namespace) -> None:
    only, soak = options.only, options.soak
    result: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        for kind in ("python", "native") if options.recorder is None else (options.recorder,):
            if only in (None, "collective"):
                result |= collective_part(kind, f"{folder}/{kind}-a", 40 // divisor)
            for job in STEPS if only in (None, "step") else ():
                result |= step_part(kind, job, f"{folder}/{kind}-{job}", 30 // divisor, options)
            if only in (None, "soak"):
                result |= soak_part(kind, f"{folder}/{kind}-c", soak // divisor)
        if only in (None, "report"):
            result["report_s"] = round(report_seconds(f"{folder}/e"), 2)
    print(json.dumps(result))


def collective_part(kind: str, folder: str, rounds: int) -> dict[str, float]:
    cost = child("--part", "collective", "--kind", kind, "--count", str(rounds), "--folder", folder)
    return {
        f"{kind}_us_per_collective": round(cost["sync_wall"], 2),
        f"{kind}_async_us_per_collective": round(cost["async_wall"], 2),
        f"{kind}_thread_cpu_us_per_collective": round(cost["sync_cpu"], 2),
        f"{kind}_process_cpu_us_per_collective": round(cost["sync_process"], 2),
        f"{kind}_us_per_other_op": round(cost["add_wall"], 3),
    }


def step_part(kind: str, job: str, folder: str, blocks: int, options: argparse.Namespace) -> dict[str, float]:
    ranks = str(options.ranks)
    launcher = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", ranks)
    rest = ("--device", options.device, "--kind", kind, "--job", job, "--count", str(blocks), "--folder", folder)
    step = child("--part", "step", *rest, launcher=launcher)
    off = statistics.median(step["medians"]["off"])
    without = {"on": "off", "profiler": "plain"}
    gains = {mode: paired_percent(step["medians"], mode, beside) for mode, beside in without.items()}
    cpu = {mode: paired_percent(step["cpu"], mode, beside) for mode, beside in without.items()}
    stop = 100 * step["profiler_stop"] / off
    print(f"{kind}, {job} step: {off * 1e3:.1f} ms off, recorded {gains['on']:+.2f} % (CPU {cpu['on']:+.2f} %), under "
          f"torch.profiler {gains['profiler']:+.2f} %, its stop and export {stop:.2f} % more")  # fmt: skip
    return {
        f"{kind}_{job}_percent_of_step": round(gains["on"], 2),
        f"{kind}_{job}_cpu_percent_of_step": round(cpu["on"], 2),
        f"{kind}_{job}_torch_profiler_percent_of_step": round(gains["profiler"] + stop, 2),
        f"{kind}_{job}_torch_profiler_cpu_percent_of_step": round(cpu["profiler"], 2),
        f"{kind}_{job}_step_ms": round(off * 1e3, 2),
    }


def soak_part(kind: str, folder: str, calls: int) -> dict[str, float]:
    plain, recorded = (
        child("--part", part, "--kind", kind, "--count", str(calls), "--folder", f"{folder}-{part}")
        for part in ("plain", "recorded")
    )
    return {
        f"{kind}_trace_bytes_per_collective": round(recorded["trace_bytes"] / calls, 1),
        f"{kind}_recorder_peak_mib": round((recorded["peak_bytes"] - plain["peak_bytes"]) / 2**20, 1),
        f"{kind}_dropped": recorded["dropped"],
    }


def paired_percent(medians: dict[str, list[float]], mode: str, beside: str) -> float:
    """Median over the rounds of one mode's block against the same round's block without hooks."""
    pairs = zip(medians[mode], medians[beside], strict=True)
    return 100 * (statistics.median(with_it / without for with_it, without in pairs) - 1)


if __name__ == "__main__":
    main()
