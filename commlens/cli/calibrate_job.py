"""The job of `commlens calibrate`: measures how long messages take in a run's groups when nobody is late.

Started by the user's launcher where the run was. Rank 0 reads the plan and writes the calibration; the others need
no file, and tell the command of their host that they took part. Groups are measured in turn: those not in it wait at a
barrier, so that nothing else uses the links.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.distributed as dist

from commlens.cli.calibrate_plan import TOOK_PART, Measurement, Plan, ranks_label, read_plan
from commlens.cli.calibrate_sweep import Sample, sweep
from commlens.cli.launcher import FAILURE, PROGRESS
from commlens.profiler.environment import host
from commlens.trace.calibration import INTER, INTRA, Calibration, CalibrationEntry, MadeWith, write_calibration


def main() -> None:
    """Join the job, measure, and let rank 0 write what was found."""
    _join()
    plan = _shared_plan()
    device, backend = _device(plan.backend)
    everyone = dist.new_group(backend=backend)
    groups = {ranks: dist.new_group(list(ranks), backend=backend) for ranks in _distinct(plan)}
    own = [_measured(each, groups[each.ranks], everyone, device, plan) for each in plan.measurements]
    gathered: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(gathered, (_machine(), own), group=everyone)
    if dist.get_rank() == 0:
        found = Calibration(plan.source, MadeWith(torch.__version__, backend), _entries(plan, gathered))
        write_calibration(Path(plan.result), found)
    dist.barrier(group=everyone)
    _tell_command(Path(sys.argv[1]))
    dist.destroy_process_group()


def _tell_command(plan: Path) -> None:
    """Leave a sign for the command of this host, if that started this rank: rank 0's result may be elsewhere."""
    with contextlib.suppress(OSError):
        plan.with_name(TOOK_PART).touch()


def _join() -> None:
    """NCCL where every rank of this host has a GPU of its own, otherwise Gloo on the CPU."""
    if torch.cuda.device_count() >= int(os.environ.get("LOCAL_WORLD_SIZE", "1")):
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
        dist.init_process_group("nccl", device_id=device)
    else:
        dist.init_process_group("gloo")


def _shared_plan() -> Plan:
    """Rank 0's plan on every rank; ends the job where it has not the ranks for it."""
    shared = [read_plan(Path(sys.argv[1])) if dist.get_rank() == 0 else None]
    dist.broadcast_object_list(shared, 0)
    plan = shared[0]
    assert plan is not None
    ranks = dist.get_world_size()
    if ranks != plan.world_size:
        if dist.get_rank() == 0:
            _say(f"{FAILURE}the run had {plan.world_size} ranks, the launcher started {ranks}; start as many")
        dist.barrier()
        sys.exit(1)
    return plan


def _device(run_backend: str) -> tuple[torch.device, str]:
    """Where to measure: as the run did, on the CPU if that is all there is."""
    backend = dist.get_backend()
    if "gloo" in (backend, run_backend):
        return torch.device("cpu"), "gloo"
    return torch.device("cuda", torch.cuda.current_device()), backend


def _distinct(plan: Plan) -> list[tuple[int, ...]]:
    return sorted({each.ranks for each in plan.measurements})


def _measured(what: Measurement, group: Any, everyone: Any, device: torch.device, plan: Plan) -> list[Sample] | None:
    """This rank's samples, None where it is not in the group; all ranks leave together."""
    samples = None
    label = f"{what.op} on ranks {ranks_label(what.ranks)}"
    if dist.get_rank() in what.ranks:
        first = dist.get_rank() == what.ranks[0]
        if first:
            _say(f"{PROGRESS}measuring {label}")
        samples = sweep(what, group, device, plan.seconds / len(plan.measurements))
        if first and len(samples) < len(what.sizes()):
            _say(f"{PROGRESS}{label}: no time for more than {samples[-1].bytes} bytes; for larger ones: --seconds")
    dist.barrier(group=everyone)
    return samples


def _say(line: str) -> None:
    """Print a line in a single write, so that the lines of several ranks do not mix."""
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def _machine() -> str:
    facts = host()
    return str(facts["boot_id"] or facts["host"])


def _entries(plan: Plan, gathered: Sequence[tuple[str, list[list[Sample] | None]]]) -> tuple[CalibrationEntry, ...]:
    """One entry a measurement, from the machine and the samples of every rank."""
    entries = []
    for number, what in enumerate(plan.measurements):
        scope = INTRA if len({gathered[rank][0] for rank in what.ranks}) == 1 else INTER
        times = _fastest([gathered[rank][1][number] or [] for rank in what.ranks])
        entries.append(
            CalibrationEntry(what.op, what.ranks, len(what.ranks), scope, tuple(times), tuple(times.values()))
        )
    return tuple(entries)


def _fastest(ranks: Sequence[list[Sample]]) -> dict[int, float]:
    """Median over repetitions of the shortest time of any rank, us, by message size."""
    return {
        same[0].bytes: median(min(each) for each in zip(*(sample.times_ns for sample in same), strict=True)) / 1e3
        for same in zip(*ranks, strict=True)
    }


if __name__ == "__main__":
    main()
