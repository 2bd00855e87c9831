"""Reading other profilers' traces: commlens beside HTA 0.5.0, TraceLens and the fastest pipeline we know, in one run.

    python bench/import_speed.py [--traces FOLDER] [--venv FOLDER] [--tracelens CHECKOUT_OR_PYTHON] [--rounds 5]

On one rank with 2,020 all_reduces (`_ddp`, 54 MB of JSON) and on eight ranks of a Megatron job (`_megatron`, 31 MB):

1. In a process, imports and a warm-up on another trace not counted: HTA's load and four basic answers (steps,
   temporal breakdown, overlap, kernel breakdown) against `open_run` and `analyze`.
2. Whole processes, time and peak memory: the same of HTA against `commlens report`; everything HTA answers (also
   idle time, stragglers, copies, queues, launches, a second load, the critical path of every rank) against the same
   `commlens report`; TraceLens's multi-rank collective report too.
3. Loading alone, in turn with isal + msgspec + numpy (seven columns; and five with args left raw), and what of it
   plain decompression and parsing take.
4. Opening again, from the cache.

commlens begins with an empty cache everywhere but in 4. The tools take turns, in both orders; medians. Memory is the
largest of a process and its children. HTA goes into an environment of its own under --venv, made where it is not
there; a tool that cannot be had is left out, and said.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import gzip
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

HERE = Path(__file__).resolve()
ROOT = HERE.parent.parent
SETS = {"ddp": "hta-ddp-v100-rank1of2-2020allreduce", "megatron": "megatron-tp8-a100"}
WARM = "torchrec-dlrm-v100x4-sleep"
HTA = ("HolisticTraceAnalysis==0.5.0", "pandas<3")  # its critical path fails with pandas 3
REPORT = "from commlens.cli.app import main; main()"
MODULES = {"hta": "hta.trace_analysis", "tracelens": "TraceLens"}
TRACELENS = "TraceLens.Reporting.generate_multi_rank_collective_report_pytorch"

Measured = dict[str, float]  # "s" and, of a whole process, "mib"


class CannotMeasure(Exception):  # noqa: N818
    """Why a side of a comparison is missing."""


# --- sides: each runs in a process of its own, the file itself with --part ---


def hta_basics(traces: dict[int, str]):
    from hta.trace_analysis import TraceAnalysis

    analysis = TraceAnalysis(trace_files=dict(traces))
    analysis.get_profiler_steps()
    analysis.get_temporal_breakdown(visualize=False)
    analysis.get_comm_comp_overlap(visualize=False)
    analysis.get_gpu_kernel_breakdown(visualize=False)
    return analysis


def hta_everything(traces: dict[int, str]) -> None:
    """An answer that fails costs what it cost until it failed: HTA raises errors of many kinds on these traces."""
    from hta.trace_analysis import TraceAnalysis

    ranks = sorted(traces)
    analysis = hta_basics(traces)
    for call in (
        lambda: analysis.get_idle_time_breakdown(ranks=ranks, visualize=False),
        lambda: analysis.get_potential_stragglers(),
        lambda: analysis.get_memory_bw_summary(ranks=ranks),
        lambda: analysis.get_queue_length_summary(ranks=ranks),
        lambda: analysis.get_cuda_kernel_launch_stats(ranks=ranks, visualize=False),
    ):
        with contextlib.suppress(Exception):
            call()
    whole = TraceAnalysis(trace_files=dict(traces), include_last_profiler_step=True)
    with contextlib.suppress(Exception):
        whole.get_comm_comp_overlap(visualize=False)
    for rank in ranks:
        with contextlib.suppress(Exception):
            path, _ = whole.critical_path_analysis(rank=rank, annotation="ProfilerStep", instance_id=0)
            path.summary()


def commlens_basics(folder: Path) -> None:
    from commlens import analyze, open_run

    with cold_cache():
        analyze(open_run(folder))


def commlens_load(folder: Path) -> None:
    from commlens import open_run
    from commlens.trace.schema import TABLES

    run = open_run(folder)
    for rank in run.ranks.values():
        for table in TABLES:
            rank.table(table)
    assert len(run.ranks) == len(files_of(folder))


@contextlib.contextmanager
def cold_cache() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="commlens-cold-") as cache:
        os.environ["COMMLENS_CACHE"] = cache
        yield cache


def pipelines() -> dict[str, Callable[[Path], object]]:
    """The fastest ways we know from a file to columns, and their first two steps alone."""
    import msgspec
    import numpy as np
    from isal import igzip

    base = [("ph", str, ""), ("cat", str, ""), ("name", str, ""), ("ts", float, 0.0), ("dur", float, 0.0)]
    args_type = msgspec.defstruct("Args", [("correlation", int, -1), ("stream", object, None)], gc=False)
    event_type = msgspec.defstruct("Event", [*base, ("tid", object, None), ("args", args_type | None, None)], gc=False)
    raw_type = msgspec.defstruct("RawEvent", [*base, ("args", msgspec.Raw, msgspec.Raw())], gc=False)

    def decoder(event: type) -> Callable:
        return msgspec.json.Decoder(msgspec.defstruct("Trace", [("traceEvents", list[event])], gc=False)).decode

    decode, decode_raw = decoder(event_type), decoder(raw_type)
    decode_args, none = msgspec.json.Decoder(args_type).decode, args_type()
    launches = ("kernel", "gpu_memcpy", "gpu_memset", "cuda_runtime", "cuda_driver")

    def codes(words: list[str]) -> np.ndarray:
        known: dict[str, int] = {}
        return np.fromiter((known.setdefault(word, len(known)) for word in words), np.int32, len(words))

    def unzipped(path: Path) -> bytes:
        return igzip.decompress(path.read_bytes())

    def seven_columns(path: Path) -> list[np.ndarray]:
        events = [event for event in decode(unzipped(path)).traceEvents if event.ph == "X"]
        count = len(events)
        args = [event.args or none for event in events]
        whole = int  # threads and streams are numbers but for a few events
        return [
            codes([event.name for event in events]),
            codes([event.cat for event in events]),
            np.fromiter((event.ts for event in events), np.float64, count),
            np.fromiter((event.dur for event in events), np.float64, count),
            np.fromiter((event.tid if type(event.tid) is whole else -1 for event in events), np.int64, count),
            np.fromiter((each.correlation for each in args), np.int64, count),
            np.fromiter((each.stream if type(each.stream) is whole else -1 for each in args), np.int64, count),
        ]

    def five_columns(path: Path) -> list[np.ndarray]:
        events = [event for event in decode_raw(unzipped(path)).traceEvents if event.ph == "X"]
        count = len(events)
        correlations = (decode_args(event.args).correlation if event.cat in launches else -1 for event in events)
        return [
            codes([event.name for event in events]),
            codes([event.cat for event in events]),
            np.fromiter((event.ts for event in events), np.float64, count),
            np.fromiter((event.dur for event in events), np.float64, count),
            np.fromiter(correlations, np.int64, count),
        ]

    return {
        "seven_columns": seven_columns,
        "five_columns_raw_args": five_columns,
        "decompress": unzipped,
        "decompress_and_parse": lambda path: decode(unzipped(path)),
    }


def load_in_turn(folder: Path, rounds: int) -> dict[str, list[float]]:
    """Seconds of each way to load, commlens's among them; the first round warms up."""
    ways: dict[str, Callable[[], object]] = {}
    for name, way in pipelines().items():
        ways[name] = lambda way=way: [way(path) and None for path in files_of(folder)]
    ways["commlens"] = lambda: commlens_load(folder)
    times: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds + 1):
        for name in list(ways) if turn % 2 else list(reversed(ways)):
            gc.collect()
            with cold_cache():
                seconds = timed(ways[name])
            if turn:
                times[name].append(seconds)
    return times


def part(name: str, folder: Path, warm: Path | None, rounds: int) -> object:
    """What the child named `name` measures."""
    if name == "copy":
        return copy(folder, warm)
    if name == "load":
        return load_in_turn(folder, rounds)
    if name == "cached":
        import commlens.trace.importers.cache  # noqa: F401

        return {"s": timed(lambda: commlens_load(folder))}
    if name.startswith("hta"):
        run = hta_everything if name == "hta-everything" else hta_basics
        if warm is not None:
            run(traces_of(warm))
        return {"s": timed(lambda: run(traces_of(folder)))}
    if warm is not None:
        commlens_basics(warm)
    return {"s": timed(lambda: commlens_basics(folder))}


def timed(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


# --- the parent ---


def files_of(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.json.gz"))


def traces_of(folder: Path) -> dict[int, str]:
    return {int(path.name[4:].partition("_")[0]): str(path) for path in files_of(folder)}


def process(command: list[str], **environment: str) -> tuple[Measured, str]:
    """Wall time and largest memory of a process and its children, and what it printed."""
    variables = {key: value for key, value in os.environ.items() if key not in ("COMMLENS", "COMMLENS_CACHE")}
    variables |= {"PYTHONWARNINGS": "ignore", **environment}
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        began = time.perf_counter()
        child = subprocess.Popen(command, env=variables, stdout=output, stderr=errors)
        _, status, usage = os.wait4(child.pid, 0)
        seconds = time.perf_counter() - began
        child.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        errors.seek(0)
        if child.returncode:
            lines = errors.read().decode(errors="replace").strip().splitlines() or ["no message"]
            raise CannotMeasure(f"exit status {child.returncode}: {lines[-1]}")
        return {"s": seconds, "mib": usage.ru_maxrss / 1024}, output.read().decode(errors="replace")


def own(python: str, name: str, folder: Path, warm: Path | None = None, rounds: int = 0, cache: str = "") -> tuple:
    """A part of this file in a process: what the process took, and what the part measured."""
    command = [python, str(HERE), "--part", name, "--folder", str(folder), "--rounds", str(rounds)]
    command += ["--warm", str(warm)] if warm else []
    environment = {"COMMLENS_CACHE": cache} if cache else {}
    whole, printed = process(command, PYTHONPATH="" if name.startswith("hta") else str(ROOT), **environment)
    return whole, json.loads(printed.strip().splitlines()[-1])


def commlens_report(folder: Path) -> Measured:
    with tempfile.TemporaryDirectory(prefix="commlens-cold-") as cache:
        command = [sys.executable, "-c", REPORT, "report", str(folder), "--format", "json"]
        whole, printed = process(command, PYTHONPATH=str(ROOT), COMMLENS_CACHE=cache)
    json.loads(printed)
    return whole


def tracelens_report(python: str, folder: Path) -> Measured:
    with tempfile.TemporaryDirectory() as output:
        pattern, world = str(folder / "rank*_trace.json.gz"), str(len(files_of(folder)))
        command = [python, "-m", TRACELENS, "--trace_pattern", pattern, "--world_size", world]
        return process([*command, "--output_csvs_dir", output])[0]


def take_turns(sides: dict[str, Callable[[], Measured]], rounds: int, label: str) -> dict[str, list[Measured]]:
    """Every side once a round, every other round backwards; a side that fails is left out from then on."""
    found: dict[str, list[Measured]] = defaultdict(list)
    for turn in range(rounds):
        for name in list(sides) if turn % 2 == 0 else list(reversed(sides)):
            try:
                found[name].append(sides[name]())
            except CannotMeasure as error:
                print(f"{label}: {name} left out: {error}", flush=True)
                del sides[name]
                found.pop(name, None)
    return found


def one_set(folder: Path, warm: Path, tools: dict[str, str], rounds: int, label: str) -> dict[str, list[Measured]]:
    here, hta = sys.executable, tools.get("hta")
    sides: dict[str, Callable[[], Measured]] = {}
    if hta:
        sides["hta in process"] = lambda: own(hta, "hta", folder, warm)[1]
    sides["commlens in process"] = lambda: own(here, "commlens", folder, warm)[1]
    if hta:
        sides["hta process"] = lambda: own(hta, "hta", folder)[0]
    sides["commlens report"] = lambda: commlens_report(folder)
    if hta:
        sides["hta everything"] = lambda: own(hta, "hta-everything", folder)[0]
    if "tracelens" in tools and len(files_of(folder)) > 1:
        sides["tracelens report"] = lambda: tracelens_report(tools["tracelens"], folder)
    return take_turns(sides, rounds, label)


def reopened(folder: Path, rounds: int) -> dict[str, float]:
    """Opening what was opened before: a process's whole time, and without its start and imports."""
    with tempfile.TemporaryDirectory(prefix="commlens-warm-") as cache:
        own(sys.executable, "cached", folder, cache=cache)
        runs = [own(sys.executable, "cached", folder, cache=cache) for _ in range(rounds)]
    numbers = {
        "cached_open_process_s": statistics.median(whole["s"] for whole, _ in runs),
        "cached_open_s": statistics.median(inside["s"] for _, inside in runs),
    }
    for name, seconds in numbers.items():
        print(f"  {name:28s} {seconds:6.3f} s")
    return numbers


def prepared(source: Path, target: Path) -> tuple[Path, float]:
    """The trace files alone, named after their ranks as TraceLens wants them; and their JSON, MB.

    In a process of its own: what a child inherits counts as its memory.
    """
    if not files_of(source):
        sys.exit(f"{source} holds no traces; name the folder of the sets with --traces")
    target.mkdir(parents=True)
    _, megabytes = own(sys.executable, "copy", source, warm=target)
    return target, megabytes


def copy(source: Path, target: Path) -> float:
    megabytes = 0.0
    for path in files_of(source):
        content = gzip.decompress(path.read_bytes())
        rank = json.loads(content)["distributedInfo"]["rank"]
        shutil.copy(path, target / f"rank{rank}_trace.json.gz")
        megabytes += len(content) / 1e6
    return megabytes


def environment_of(folder: Path, packages: tuple[str, ...]) -> str:
    """The interpreter of an environment with `packages`, which is made where there is none."""
    python = folder / "bin" / "python"
    if (folder / "made").is_file():
        return str(python)
    print(f"making {folder}: {', '.join(packages)}", flush=True)
    venv.create(folder, clear=True, with_pip=True)
    pip = [str(python), "-m", "pip", "install", "--quiet", *packages]
    done = subprocess.run(pip, capture_output=True, text=True, timeout=900)
    if done.returncode:
        raise CannotMeasure(f"pip: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
    (folder / "made").touch()
    return str(python)


def peers(options: argparse.Namespace) -> dict[str, str]:
    """Interpreters of the tools that can be had, by tool; says why of the others."""
    wanted = {"hta": lambda: environment_of(options.venv / "hta", HTA)}
    given = options.tracelens
    if given is None:
        print("tracelens left out: no --tracelens; its name on PyPI is another package's, so it needs a checkout")
    elif given.is_dir():
        wanted["tracelens"] = lambda: environment_of(options.venv / "tracelens", (str(given.resolve()),))
    else:
        wanted["tracelens"] = lambda: str(given.absolute())
    found = {}
    for tool, interpreter in wanted.items():
        try:
            found[tool] = interpreter()
            process([found[tool], "-c", f"import {MODULES[tool]}"])
        except (CannotMeasure, OSError, subprocess.SubprocessError) as error:
            print(f"{tool} left out: {error}")
            found.pop(tool, None)
    return found


def main() -> None:
    options = parse()
    if options.part:
        print("\n" + json.dumps(part(options.part, options.folder, options.warm, options.rounds)))
        return
    tools = peers(options)
    result: dict[str, float] = {"rounds": options.rounds, "cores": os.cpu_count() or 0}
    with tempfile.TemporaryDirectory(prefix="commlens-import-") as scratch:
        warm, _ = prepared(options.traces / WARM, Path(scratch) / "warm")
        for label in options.sets:
            folder, megabytes = prepared(options.traces / SETS[label], Path(scratch) / label)
            print(f"\n{SETS[label]}: {len(files_of(folder))} files, {megabytes:.1f} MB of JSON", flush=True)
            numbers = compared(one_set(folder, warm, tools, options.rounds, label))
            numbers |= loading(folder, megabytes, options.rounds, label) | reopened(folder, options.rounds)
            result |= {f"{key}_{label}": value for key, value in numbers.items()}
    print(json.dumps({key: round(value, 4) for key, value in result.items()}))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--traces", type=Path, default=ROOT.parent / "shared" / "traces", help="folder of the sets")
    parser.add_argument("--venv", type=Path, default=Path(tempfile.gettempdir()) / "commlens-bench-peers")
    parser.add_argument("--tracelens", type=Path, help="a checkout of TraceLens, or a Python that has it")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sets", nargs="+", choices=sorted(SETS), default=list(SETS))
    parser.add_argument("--part", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--warm", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def compared(found: dict[str, list[Measured]]) -> dict[str, float]:
    """Prints a row a side; the ratios and the medians behind them."""
    middle = {
        side: {key: statistics.median(each[key] for each in runs) for key in runs[0]} for side, runs in found.items()
    }
    numbers: dict[str, float] = {}
    for side, values in middle.items():
        times = [each["s"] for each in found[side]]
        memory = f"{values['mib']:8.0f} MiB" if "mib" in values else ""
        print(f"  {side:22s} {values['s']:8.3f} s  [{min(times):.3f}, {max(times):.3f}] {memory}", flush=True)
        key = side.replace(" ", "_")
        numbers |= {f"{key}_s": values["s"]} | ({f"{key}_rss_mib": values["mib"]} if memory else {})
    ratios = {
        "speedup_vs_hta_in_process": ("hta in process", "commlens in process", "s"),
        "speedup_vs_hta_process": ("hta process", "commlens report", "s"),
        "speedup_full_vs_hta_whole": ("hta everything", "commlens report", "s"),
        "rss_ratio_vs_hta": ("commlens report", "hta process", "mib"),
        "rss_ratio_vs_hta_whole": ("commlens report", "hta everything", "mib"),
        "tracelens_ratio": ("commlens report", "tracelens report", "s"),
    }
    for name, (above, below, unit) in ratios.items():
        if above in middle and below in middle:
            numbers[name] = middle[above][unit] / middle[below][unit]
            print(f"  {name:28s} {numbers[name]:6.2f}")
    return numbers


def loading(folder: Path, megabytes: float, rounds: int, label: str) -> dict[str, float]:
    """Loading alone; the reason is printed where it cannot be measured."""
    try:
        _, times = own(sys.executable, "load", folder, rounds=2 * rounds)
    except CannotMeasure as error:
        print(f"{label}: loading alone left out: {error}")
        return {}
    middle = {name: statistics.median(values) for name, values in times.items()}
    for name, seconds in middle.items():
        print(f"  load: {name:21s} {seconds * 1e3:7.1f} ms {megabytes / seconds:7.0f} MB/s")
    best = min(middle["seven_columns"], middle["five_columns_raw_args"])
    load = middle["commlens"]
    numbers = {
        "load_s": load,
        "load_raw_mb_per_s": megabytes / load,
        "best_pipeline_s": best,
        "load_vs_best_pipeline": load / best,
        "decompress_percent_of_load": 100 * middle["decompress"] / load,
        "decompress_and_parse_percent_of_load": 100 * middle["decompress_and_parse"] / load,
    }
    print(f"  load_vs_best_pipeline {numbers['load_vs_best_pipeline']:.2f}")
    return numbers


if __name__ == "__main__":
    main()
