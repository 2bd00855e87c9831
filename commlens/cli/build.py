"""`commlens build`: compiles the parts that are faster, or know more, than Python."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from commlens.cli.report import Format

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from commlens.profiler.built import Compiler, Part


def build(
    force: Annotated[bool, typer.Option("--force", help="Compile anew what is there.")] = False,
    format: Annotated[Format, typer.Option("--format", help="Text to read, or JSON.")] = Format.text,
) -> None:
    """Compile the native recorder and the NCCL plugin for this machine's torch; jobs use them from then on.

    They go into the user's cache. Without them everything works, from Python.

    Example: commlens build
    """
    from commlens.profiler import built, nccl_plugin

    answers = {
        "native": _built(built.native, built.build_native, built.CXX, force),
        "nccl_plugin": _built(built.nccl_plugin, built.build_nccl_plugin, built.CC, force),
    }
    path = answers["nccl_plugin"]["path"]
    answers["nccl_plugin"]["tables"] = nccl_plugin.tables(path) if path else []
    if format == Format.json:
        typer.echo(json.dumps(answers, indent=1))
    else:
        for name, answer in answers.items():
            typer.echo(f"{name:12s} {answer['path'] or 'not built'}")
    for name, answer in answers.items():
        if not answer["ok"]:
            print(f"commlens: {name}: {answer['why']}; jobs go on without it", file=sys.stderr)  # noqa: T201
    if not all(answer["ok"] for answer in answers.values()):
        raise typer.Exit(1)


def _built(part: Callable[[], Part], compile_it: Callable[[], Path], by: Compiler, force: bool) -> dict[str, Any]:
    from commlens.errors import BuildError

    try:
        there = None if force or part().is_by_another(by) else part().found()
        path = there or compile_it()
    except (BuildError, ImportError) as error:
        return {"path": None, "ok": False, "why": str(error)}
    why = "it was there" if there else f"compiled by {part().note().get('compiler', 'a compiler')}"
    return {"path": str(path), "ok": True, "why": why}
