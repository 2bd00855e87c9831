"""`commlens demo`: records a small job with a planted problem and shows its report."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Annotated

import typer

from commlens.cli.places import here
from commlens.cli.report import report
from commlens.cli.run import record_command, run_folders
from commlens.cli.runs import RUNS
from commlens.errors import CommlensError, UsageError

JOB = Path(__file__).with_name("demo_job.py")


def demo(
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="PATH", help="Folder that receives the run.", parser=here)
    ] = RUNS,
) -> None:
    """Record a two-rank job on this machine that has a communication problem, and print its report.

    Example: commlens demo -o runs
    """
    if importlib.util.find_spec("torch") is None:
        raise UsageError("the demo needs torch, which is not installed here; next: pip install torch")
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        str(JOB),
    ]
    print(f"commlens: COMMLENS={output} torchrun --nproc-per-node 2 {JOB.name}", file=sys.stderr)  # noqa: T201
    before = run_folders(output)
    code = record_command(command, output)
    new = sorted(run_folders(output) - before)
    if code != 0 or not new:
        raise CommlensError(f"the demo's job ended with code {code} and left no run in {output}; next: commlens doctor")
    print(f"commlens: commlens report {new[-1]}", file=sys.stderr)  # noqa: T201
    report([new[-1]])
