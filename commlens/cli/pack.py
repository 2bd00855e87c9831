"""`commlens pack`: what a job left behind on a node, brought into the run's folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer


def pack(
    local: Annotated[
        Path, typer.Argument(metavar="LOCAL", help="Node-local folder of a run, or of runs.", show_default=False)
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="RUN",
            help="Folder of the run. Default: what it was recorded for.",
            show_default=False,
        ),
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave LOCAL there.")] = False,
) -> None:
    """Pack the ranks that a job with COMMLENS_PACK=node left on this node, as one file in the run's folder.

    The pack is read back and compared; then LOCAL is removed.

    Example: commlens pack /tmp/commlens-1000/20260301-101500-train-8a1f -o runs/20260301-101500-train-8a1f
    """
    from commlens.errors import RunNotFoundError, UsageError
    from commlens.trace.folders import runs_in

    runs = runs_in(local)
    if not runs:
        raise RunNotFoundError(f"{local} holds no run; give the folder that the job named, or the one above it")
    if output is not None and len(runs) > 1:
        raise UsageError(f"{local} holds {len(runs)} runs, and RUN is one; give one of them, or leave -o out")
    for run in runs:
        typer.echo(_packed(run, output if output is not None else _destination(run), keep))


def _destination(local: Path) -> Path:
    from commlens.errors import UsageError
    from commlens.trace.on_nodes import pack_entry, run_info

    packed = pack_entry(run_info(local))
    if not packed:
        raise UsageError(f"{local} does not say which run it belongs to; say where its pack goes: -o RUN")
    return Path(packed["run"])


def _packed(local: Path, run: Path, keep: bool) -> Path:
    """The pack of one node.

    Raises:
        CommlensError: It cannot be packed now, or not there; `local` is as it was.
    """
    from commlens.errors import TraceError, WriteError
    from commlens.profiler.packing.presence import gate
    from commlens.trace.node_local import difference, pack_node, remove

    try:
        _check_same_run(local, run)
        with _alone(local):
            pack = pack_node(local, run)
            if pack is None:
                raise TraceError(f"{local} holds no rank; there is nothing to pack")
            if (why := difference(local, pack)) is not None:
                raise WriteError(f"{local} is not packed: {why}; it stays; try again")
            if not keep:
                with gate(local):
                    remove(local)
    except OSError as error:
        raise WriteError(
            f"cannot pack {local} into {run}: {error.strerror or error}; it stays; give another folder with -o"
        ) from error
    return pack


def _check_same_run(local: Path, run: Path) -> None:
    from commlens.errors import UsageError
    from commlens.trace.on_nodes import run_info

    mine, others = run_info(local).get("run_id"), run_info(run).get("run_id")
    if run.resolve() == local.resolve():
        raise UsageError(f"{run} is the node-local folder itself; give the run's folder")
    if mine and others and mine != others:
        raise UsageError(f"{run} is another run, {others}; {local} is of {mine}; give the folder of that one with -o")


@contextmanager
def _alone(local: Path) -> Iterator[None]:
    """While nothing else packs or records there."""
    from commlens.errors import CommlensError
    from commlens.profiler.packing.presence import PACKER, is_recording, take

    lock = take(local / PACKER)
    if lock is None:
        pid = (local / PACKER).read_text(encoding="ascii", errors="replace").strip() or "not known"
        raise CommlensError(
            f"{local} is being packed by process {pid}; wait for it, or end that process where it hangs, and try again"
        )
    try:
        if is_recording(local):
            raise CommlensError(f"ranks are still recording into {local}; they are packed when they end")
        yield
    finally:
        os.close(lock)
