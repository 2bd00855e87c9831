"""How far predictions are from what then happens: jobs of the lab's synthetic link, predicted first, measured after.

    python bench/whatif_error.py [--quick] [--only bound] [-o FOLDER]

Each base is recorded once. Everything is predicted from that recording and written to FOLDER/predictions.json;
only then the changed jobs run. The error is of the step's time, in percent of the measured one. The last line is
one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from lab.plan import Plan, Slow  # noqa: E402
from lab.run import record  # noqa: E402
from lab.scenario import Expected, Scenario  # noqa: E402

import commlens  # noqa: E402
from commlens.analyzers.ranks import rank_facts  # noqa: E402
from commlens.analyzers.whatif.asked import simulator_of  # noqa: E402
from commlens.analyzers.whatif.optimum import best_cap  # noqa: E402
from commlens.trace.changes import parse_all  # noqa: E402

RANKS, STEPS = 2, 24
Options = dict[str, float]


@dataclass(frozen=True)
class Change:
    """What is predicted, and what the job is told to make it true."""

    text: str
    options: Options = field(default_factory=dict)
    plan: dict[str, Any] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)
    healed: bool = False
    ranks: int = RANKS
    mean: bool = False  # steps differ by design: their mean counts


@dataclass(frozen=True)
class Base:
    """A recorded job, and its changes."""

    name: str
    options: Options
    plan: Plan
    changes: tuple[Change, ...]
    calibrated: bool = False
    job: str = "bucketed"
    ranks: int = RANKS


def caps(*values: float) -> tuple[Change, ...]:
    """Other bucket sizes."""
    return tuple(Change(f"ddp.bucket_cap_mb={cap:g}", {"cap_mb": cap}) for cap in values)


SLOW = {"kind": "slow", "rank": 1, "phase": "forward", "ms": 40.0}
PAIRS = tuple(Slow(ranks=(rank, rank + 2), alpha_us=2000, exact=True) for rank in range(2))
BASES = (
    Base(
        "default",
        {"load": 10, "forward": 60, "backward": 170},
        Plan(alpha_us=2000, gb_s=0.1, seed=1, shared=True),
        (
            *caps(0.25, 1, 5, 25),
            Change("link.bandwidth=x2", plan={"gb_s": 0.2}),
            Change("ddp.comm_hook=fp16", {"fp16": 1}),
            Change("ddp.last_bucket_cap=1", env={"DDP_SET_LAST_BUCKET_CAP": "1"}),
        ),
    ),
    Base(
        "bound",
        {"load": 10, "forward": 60, "backward": 100},
        Plan(alpha_us=3000, gb_s=0.06, seed=2, jitter=0.05, shared=True),
        (*caps(1, 4), Change("ddp.bucket_cap_mb=2,link.bandwidth=x2", {"cap_mb": 2}, {"gb_s": 0.12})),
    ),
    Base(
        "alike",
        {"load": 10, "forward": 60, "backward": 100, "cap_mb": 1},
        Plan(alpha_us=3000, gb_s=0.06, seed=5, jitter=0.05, shared=True),
        (
            *caps(0.5, 4, 25),
            Change("link.bandwidth=x3", plan={"gb_s": 0.18}),
            Change("link.latency=x0.25", plan={"alpha_us": 750}),
        ),
        calibrated=True,
    ),
    Base(
        "apart",
        {"load": 10, "forward": 60, "backward": 100, "cap_mb": 0.5},
        Plan(alpha_us=3000, gb_s=0.06, seed=6, jitter=0.05),
        (*caps(1, 4), Change("link.bandwidth=x2", plan={"gb_s": 0.12})),
    ),
    Base(
        "late",
        {"load": 10, "forward": 60, "backward": 120, "cap_mb": 2},
        Plan(alpha_us=1000, gb_s=0.2, seed=3, faults=(SLOW,), shared=True),
        (Change("straggler.remove=1", healed=True),),
    ),
    Base(
        "uneven",
        {"load": 10, "forward": 60, "backward": 120, "steps": 48},
        Plan(alpha_us=2000, gb_s=0.1, seed=8, shared=True, faults=({"kind": "spread", "sigma": 0.06},)),
        (*caps(1), Change("link.bandwidth=x2", plan={"gb_s": 0.2}), Change("imbalance.remove=1", healed=True)),
    ),
    Base(
        "micro",
        {"load": 10, "forward": 30, "backward": 60, "cap_mb": 2, "micro": 2},
        Plan(alpha_us=1000, gb_s=0.1, seed=7, shared=True),
        (Change("ddp.no_sync_every=2", {"no_sync": 1}),),
    ),
    Base(
        "manual",
        {"load": 10, "forward": 60, "backward": 120, "manual": 1},
        Plan(alpha_us=2000, gb_s=0.1, seed=4),
        (Change("link.bandwidth=x2", plan={"gb_s": 0.2}), Change("link.latency=x0.25", plan={"alpha_us": 500})),
    ),
    Base(
        "unused",
        {"load": 10, "forward": 60, "backward": 120, "cap_mb": 1, "find_unused": 1},
        Plan(alpha_us=2000, gb_s=0.1, seed=9, shared=True),
        (
            Change("ddp.find_unused_parameters=0", {"find_unused": 0}),
            Change("ddp.static_graph=1", {"static_graph": 1}),
            Change("ddp.find_unused_parameters=0,ddp.bucket_cap_mb=4", {"find_unused": 0, "cap_mb": 4}),
            Change("ddp.find_unused_parameters=0,link.bandwidth=x2", {"find_unused": 0}, {"gb_s": 0.2}),
        ),
    ),
    Base(
        "buffers",
        {"load": 10, "forward": 60, "backward": 120, "cap_mb": 2, "buffers": 1},
        Plan(alpha_us=2000, gb_s=0.1, seed=10, shared=True),
        (
            Change("ddp.broadcast_buffers=0", {"broadcast": 0}),
            Change("ddp.broadcast_buffers=0,ddp.comm_hook=fp16", {"broadcast": 0, "fp16": 1}),
            Change("ddp.find_unused_parameters=1", {"find_unused": 1}),
            Change("ddp.broadcast_buffers=0,ddp.bucket_cap_mb=0.5", {"broadcast": 0, "cap_mb": 0.5}),
        ),
    ),
    Base(
        "local",
        {"load": 10, "forward": 30, "backward": 60, "cap_mb": 1, "layers": 16, "mib": 5},
        Plan(alpha_us=2000, gb_s=0.1, seed=11, shared=True),
        (
            Change("sync.period=4", {"period": 4, "steps": 26}, mean=True),
            Change("sync.period=2", {"period": 2, "steps": 26}, mean=True),
            # A ring's latency grows with the ranks, which the lab's link does not know by itself.
            Change("world_size=4", plan={"alpha_us": 6000}, ranks=4),
        ),
    ),
    Base(
        "shards",
        {"load": 10, "forward": 60, "backward": 120, "layers": 6, "mib": 6},
        Plan(alpha_us=2000, gb_s=0.1, seed=12),
        (
            Change("fsdp.reshard_after_forward=0", {"reshard": 0}),
            Change("fsdp.unit_merge=2", {"merge": 2}),
            Change("fsdp.unit_merge=3", {"merge": 3}),
            Change("fsdp.reduce_dtype=bf16", {"reduce16": 1}),
            Change("fsdp.reshard_after_forward=0,link.bandwidth=x2", {"reshard": 0}, {"gb_s": 0.2}),
            Change("fsdp.unit_merge=2,fsdp.reduce_dtype=bf16", {"merge": 2, "reduce16": 1}),
        ),
        job="fsdp2",
    ),
    Base(
        "copies",
        {"load": 10, "forward": 60, "backward": 120, "layers": 4, "mib": 4},
        Plan(alpha_us=3000, gb_s=0.1, seed=13),
        (
            # Latencies as a ring's: a third in groups of two, and of the all_reduce, which is two of the others, too.
            Change("fsdp.shard_size=2", {"shard_size": 2}, {"alpha_us": 1000, "slow": PAIRS}),
            Change("fsdp.reshard_after_forward=0", {"reshard": 0}),
        ),
        job="fsdp2",
        ranks=4,
    ),
)


def scenario(base: Base, change: Change | None = None) -> Scenario:
    """The lab's job of a base, changed or as it is."""
    options, plan = {"steps": STEPS, **base.options}, base.plan
    if change is not None:
        options |= change.options
        plan = replace(plan, faults=() if change.healed else plan.faults, **change.plan)  # type: ignore[arg-type]
    healthy = base.plan if base.calibrated else None
    ranks = base.ranks if change is None or change.ranks == RANKS else change.ranks
    return Scenario(base.name, base.job, options, plan, Expected(), ranks=ranks, healthy_link=healthy)


def step_ms(run: Path, mean: bool = False) -> float:
    """Median step, or their mean, mean over the ranks."""
    opened = commlens.open_run(run)
    if mean:
        steps = [rank_facts(rank).steps for rank in opened.ranks.values()]
        return statistics.fmean(float((each.end_ns - each.start_ns).mean()) for each in steps) / 1e6
    step = commlens.analyze(opened).time_budget.step_ms
    assert step is not None
    return step


def predictions(base: Base, run: Path) -> list[dict[str, Any]]:
    """What is said before anything is tried."""
    simulator = simulator_of(commlens.open_run(run))
    said: list[dict[str, Any]] = []
    for change in base.changes:
        found = simulator.scenario(parse_all(change.text))
        predicted = asdict(found.predicted) if found.predicted else None
        said.append(
            {"base": base.name, "change": change.text, "before_ms": step_ms(run), **asdict(simulator.replayed())}
            | {"predicted": predicted, "abstention": found.abstention}
        )
    return said


def with_chosen(base: Base, run: Path) -> Base:
    """The base with the cap that the optimiser chooses as one more change, where caps are among its changes."""
    baseline = simulator_of(commlens.open_run(run)).baseline
    if baseline is None or not any(_is_cap(change.text) for change in base.changes):
        return base
    found = best_cap(baseline)
    assert not isinstance(found, str), found
    return replace(base, changes=(*base.changes, *caps(float(str(found.change.value)))))


def _is_cap(text: str) -> bool:
    return text.startswith("ddp.bucket_cap_mb=") and "," not in text


def chosen_over_best(changes: list[tuple[Base, Change]], after_ms: list[float]) -> float:
    """By how many percent a chosen cap is worse than the best of its base's other caps, at worst."""
    worst = 0.0
    for base in {base.name: base for base, _ in changes}.values():
        tried = [ms for (of, change), ms in zip(changes, after_ms, strict=True) if of is base and _is_cap(change.text)]
        if len(tried) > 1:
            worst = max(worst, 100 * (tried[-1] / min(tried[:-1]) - 1))
    return worst


def compared(said: dict[str, Any], after_ms: float) -> dict[str, float]:
    """Prints one line; the numbers it adds."""
    predicted, before = said["predicted"], said["before_ms"]
    name = f"{said['base']:8} {said['change']:40}"
    if not isinstance(predicted, dict) or not isinstance(before, float):
        print(f"{name} not predicted: {said['abstention']}", flush=True)
        return {}
    gain = before - after_ms
    error = 100 * (predicted["step_ms"] / after_ms - 1)
    covered = predicted["low_ms"] <= gain <= predicted["high_ms"]
    print(
        f"{name} {before:7.1f} -> predicted {predicted['step_ms']:7.1f}, measured {after_ms:7.1f} ms ({error:+.2f} %);"
        f" gain {gain:6.1f} in {predicted['low_ms']:6.1f} .. {predicted['high_ms']:6.1f}: {covered}",
        flush=True,
    )
    wrong_sign = gain * predicted["gain_ms"] < 0 and abs(gain) > 0.02 * before
    return {"error": abs(error), "covered": float(covered), "wrong_sign": float(wrong_sign)}


def _after_ms(base: Base, change: Change, folder: Path) -> float:
    return step_ms(record(scenario(base, change), folder), change.mean)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the first base only, its first four changes")
    parser.add_argument("--only", help="one base by its name")
    parser.add_argument("-o", "--output", type=Path, help="where recordings and predictions are kept")
    chosen = parser.parse_args()
    bases = [base for base in BASES if chosen.only in (None, base.name)]
    if chosen.quick:
        bases = [replace(bases[0], changes=bases[0].changes[:4])]
    with tempfile.TemporaryDirectory() as scratch:
        folder = chosen.output or Path(scratch)
        runs = [record(scenario(base), folder / base.name) for base in bases]
        bases = [with_chosen(base, run) for base, run in zip(bases, runs, strict=True)]
        said = [each for base, run in zip(bases, runs, strict=True) for each in predictions(base, run)]
        (folder / "predictions.json").write_text(json.dumps(said, indent=2) + "\n")
        changes = [(base, change) for base in bases for change in base.changes]
        found, after = [], []
        for number, (each, (base, change)) in enumerate(zip(said, changes, strict=True)):
            os.environ.update(change.env)
            after.append(_after_ms(base, change, folder / f"after-{number}"))
            found.append(compared(each, after[-1]))
            for name in change.env:
                del os.environ[name]
    told = [each for each in found if each]
    replays = [
        100 * abs(float(str(e["replayed_ms"])) / float(str(e["measured_ms"])) - 1) for e in said if e["predicted"]
    ]
    print(
        json.dumps(
            {
                "cases": len(found),
                "predicted": len(told),
                "median_error_percent": round(statistics.median(each["error"] for each in told), 3),
                "worst_error_percent": round(max(each["error"] for each in told), 3),
                "interval_coverage": round(statistics.fmean(each["covered"] for each in told), 3),
                "wrong_signs": int(sum(each["wrong_sign"] for each in told)),
                "worst_replay_error_percent": round(max(replays), 3),
                "chosen_cap_over_best_percent": round(chosen_over_best(changes, after), 3),
            }
        )
    )


if __name__ == "__main__":
    main()
