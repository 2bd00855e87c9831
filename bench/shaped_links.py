"""Is the fitted cost of a link what a plain measurement of it gives? Needs root (network namespaces, tc).

    python bench/shaped_links.py [--quick]

Two emulated hosts on a link of 50, 200 and 1000 Mbit/s, in turn:

1. plain: a job without commlens times all_reduces by hand; the ranks begin each together.
2. recorded: a job under commlens issues the same ones, each rank after a random pause, so that the ranks wait.
3. the fit: `fit_cost` on the recording's transfers (completion - last arrival: one kernel has one clock), and on the
   smallest duration over the ranks, which needs no common clock.

Compared are the fit's bandwidth with plain's algbw at the largest size, and the fit's alpha with plain's time of the
smallest. Plain and recorded jobs take turns, for the machine is not equally fast all the time. In both, ranks sleep
before each: alpha is a matter of what a core did before (180 us in a tight loop, 240 after 2 ms, 330 after 10 ms).

The sizes leave a gap. A token bucket lets what it holds pass at no cost (`lab.hosts.burst_bytes`: 3 to 25 kB), which a
real link never does, so below that the emulated link is no line: all small messages take alpha, as if the bandwidth
were endless. A line can agree with that only where bytes / bandwidth is small beside alpha (at 50 Mbit/s 256 bytes are
41 us of 300), and far above the bucket (512 kB are 20 of the largest). Such sizes are used.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve()
sys.path[:0] = [str(HERE.parent.parent), str(HERE.parent.parent / "tests")]
RATES = (50, 200, 1000)  # Mbit/s
SMALL, LARGE = (64, 128, 256), (512 * 1024, 2 * 1024 * 1024, 8 * 1024 * 1024)
SKEW_S = 0.004
Times = dict[int, list[float]]  # us by bytes


def schedule(rate: float, budget_s: float) -> list[int]:
    """Sizes in a random order that all ranks share, each for `budget_s` or twice."""
    sizes = []
    for size in (*SMALL, *LARGE):
        expected_s = SKEW_S + size * 8 / rate / 1e6
        sizes += [size] * max(2, min(60, round(budget_s / expected_s)))
    random.Random(0).shuffle(sizes)
    return sizes


def rank(part: str, sizes: list[int]) -> None:
    """One rank of either job; in the plain one rank 0 prints the times of all."""
    import torch
    import torch.distributed as dist

    _alone()
    dist.init_process_group("gloo")
    tensors = {size: torch.zeros(size // 4) for size in set(sizes)}
    begin, pause = torch.zeros(1), random.Random(dist.get_rank())
    taken = []
    for size in sizes:
        if part == "plain":
            dist.all_reduce(begin)
        time.sleep(SKEW_S / 2 if part == "plain" else pause.uniform(0, SKEW_S))
        started = time.perf_counter()
        dist.all_reduce(tensors[size])
        taken.append((time.perf_counter() - started) * 1e6)
    if part == "plain":
        last = torch.tensor(taken, dtype=torch.float64)
        dist.all_reduce(last, op=dist.ReduceOp.MIN)  # of the rank that began last, by some microseconds
        if dist.get_rank() == 0:
            print(json.dumps([round(each, 1) for each in last.tolist()]))
    dist.destroy_process_group()


def _alone() -> None:
    """A core to itself, as on a host of its own.

    Ranks that now share a core and now do not have two alphas, 150 and 350 us, and other work here makes it 1000.
    """
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[int(os.environ["RANK"]) % len(cores)]})
    os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))


def recorded(folder: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Bytes, transfer and smallest duration over the ranks of every collective, in ns."""
    import commlens

    run = commlens.open_run(next(folder.iterdir()))
    columns = [each.columns("collectives", ["seq", "in_bytes", "started_ns", "completed_ns"]) for each in _ranks(run)]
    assert all((each["seq"] == columns[0]["seq"]).all() for each in columns)
    starts, ends = (np.stack([each[name] for each in columns]) for name in ("started_ns", "completed_ns"))
    transfer = np.round((ends - starts.max(axis=0)).mean(axis=0)).astype(np.int64)
    return columns[0]["in_bytes"], transfer, (ends - starts).min(axis=0)


def _ranks(run):
    return [run.ranks[number] for number in sorted(run.ranks)]


def measure(rate: float, rounds: int, budget_s: float) -> tuple[Times, tuple[np.ndarray, ...]]:
    """Plain times by size, and what `recorded` gives, of all rounds."""
    from lab.hosts import lab_hosts

    sizes = schedule(rate, budget_s)
    arguments = ["--rate", str(rate), "--budget", str(budget_s)]
    plain: Times = {}
    recordings = []
    with lab_hosts([rate, rate]) as lab:
        for _ in range(rounds):
            ended = lab.launch(HERE, "--part", "plain", *arguments, timeout_s=180)
            for size, taken in zip(sizes, json.loads(ended[0].stdout), strict=True):
                plain.setdefault(size, []).append(taken)
            with tempfile.TemporaryDirectory() as folder:
                lab.launch(HERE, "--part", "skewed", *arguments, env={"COMMLENS": folder}, timeout_s=180)
                recordings.append(recorded(Path(folder)))
    return plain, tuple(np.concatenate(each) for each in zip(*recordings, strict=True))


def compared(rate: float, plain: Times, recording: tuple[np.ndarray, ...]) -> dict[str, float | None]:
    """Prints a rate's comparison; its part of the last line."""
    from commlens.analyzers.across.costs import fit_cost

    sizes, transfer, smallest = recording
    middle = {size: statistics.median(taken) for size, taken in sorted(plain.items())}
    plain_mbit, plain_us = LARGE[-1] * 8 / middle[LARGE[-1]], middle[SMALL[0]]
    print(f"{rate} Mbit/s asked; plain: {plain_mbit:.1f} Mbit/s, {plain_us:.0f} us for {SMALL[0]} bytes")
    for size, taken in middle.items():
        ours = [float(np.median(each[sizes == size])) / 1e3 for each in (transfer, smallest)]
        print(f"  {size:>8} bytes: plain {taken:9.0f} us, transfer {ours[0]:9.0f}, smallest duration {ours[1]:9.0f}")
    result: dict[str, float | None] = {f"plain_mbit_s_{rate}": plain_mbit, f"plain_alpha_us_{rate}": plain_us}
    for name, values in (("fit", transfer), ("clock_free_fit", smallest)):
        cost = fit_cost(sizes, values)
        mbit = cost.bandwidth_gb_s * 8e3 if cost and cost.bandwidth_gb_s else None
        alpha = cost.alpha_us if cost else None
        off = {"bandwidth": _off(mbit, plain_mbit), "alpha": _off(alpha, plain_us)}
        print(f"  {name}: {mbit} Mbit/s ({off['bandwidth']} %), alpha {alpha} us ({off['alpha']} %)")
        if cost:
            print(f"    {cost}")
        result |= {f"{name}_mbit_s_{rate}": mbit, f"{name}_alpha_us_{rate}": alpha}
        result |= {f"{name}_{what}_error_percent_{rate}": value for what, value in off.items()}
    return result


def _off(ours: float | None, plain: float) -> float | None:
    return None if ours is None else round(100 * (ours / plain - 1), 1)


def _worst(result: dict[str, float | None], what: str) -> float | None:
    errors = [value for name, value in result.items() if name.startswith(f"fit_{what}_error")]
    return None if None in errors else max(abs(error) for error in errors if error is not None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one round, short")
    parser.add_argument("--rates", type=int, nargs="*", default=RATES, help="Mbit/s (default: %(default)s)")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    parser.add_argument("--rate", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--budget", type=float, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.part:
        rank(chosen.part, schedule(chosen.rate, chosen.budget))
        return
    from lab.hosts import available

    if reason := available():
        sys.exit(reason)
    result: dict[str, float | None] = {}
    for rate in chosen.rates:
        result |= compared(rate, *measure(rate, *((1, 0.5) if chosen.quick else (5, 0.7))))
    result |= {f"worst_{what}_error_percent": _worst(result, what) for what in ("bandwidth", "alpha")}
    print(json.dumps({name: value if value is None else round(value, 1) for name, value in result.items()}))


if __name__ == "__main__":
    main()
