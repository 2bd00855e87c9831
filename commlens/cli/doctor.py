"""`commlens doctor`: what works on this machine, tried out rather than assumed; or whether a run is healthy."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from commlens.cli.places import anywhere
from commlens.cli.report import Format
from commlens.cli.runs import RankRegex

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from commlens.analyzers.health.machine import Torch
    from commlens.analyzers.settings.setting import Setting
    from commlens.render.checks import Diagnosis, Part


def doctor(
    runs: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[RUN]...",
            readable=False,
            help="A run, to say whether its recording is healthy; several folders are its parts."
            " Default: this machine.",
            show_default=False,
            parser=anywhere,
        ),
    ] = None,
    format: Annotated[Format, typer.Option("--format", help="Text to read, or JSON (schema 1).")] = Format.text,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 on warnings too.")] = False,
    rank_regex: RankRegex = None,
) -> None:
    """Check this machine, or a run: what works, what conflicts, where ranks differ.

    Exits with 1 where something failed.

    Example: commlens doctor commlens-runs --strict
    """
    found = _of_run(runs, rank_regex, format) if runs else _of_machine(format)
    if format is Format.json:
        import json

        typer.echo(json.dumps(found.to_dict(), indent=2, allow_nan=False))
    if found.failed or (strict and found.warned):
        raise typer.Exit(1)


def _of_run(runs: list[Path], rank_regex: str | None, format: Format) -> Diagnosis:
    import time

    from commlens.analyzers.health.recording import examine_health
    from commlens.analyzers.stages import examine
    from commlens.cli.runs import open_chosen
    from commlens.render.run_health import diagnosis, verdict

    examined = examine(open_chosen(runs, rank_regex))
    found = diagnosis(examined, examine_health(examined, time.time_ns()))
    if format is Format.text:
        _show([*found.parts], verdict(found))
    return found


def _of_machine(format: Format) -> Diagnosis:
    """Looks at one thing after the other, and shows each at once."""
    from commlens.render.checks import Conflict, Diagnosis
    from commlens.render.machine import verdict

    known: list[Setting] = []
    parts = []
    for part in _machine_parts(known):
        parts.append(part)
        if format is Format.text:
            _show([part])
    conflicts = tuple(Conflict(each) for each in known if each.is_warning)
    found = Diagnosis("machine", None, tuple(parts), conflicts)
    found = Diagnosis("machine", None, tuple(parts), conflicts, healthy=not found.failed)
    if format is Format.text:
        _show([], verdict(found))
    return found


def _show(parts: list[Part], last: str = "") -> None:
    from commlens.render.checks import print_part
    from commlens.render.words import open_console

    console = open_console(sys.stdout)
    for part in parts:
        print_part(part, console)
    if last:
        console.print(last)


def _machine_parts(known: list[Setting]) -> Iterator[Part]:
    """Each part when it is asked for; `known` receives what is said of settings."""
    from commlens.analyzers.health.machine import Torch
    from commlens.cli import machine
    from commlens.render import machine as words

    yield words.versions_part(machine.versions())
    yield _looked("Attaching by COMMLENS", lambda: words.attaching_part(machine.attached_by()))
    torch = machine.torch_facts() if machine.has_torch() else Torch(error="not installed", distributed=False)
    if machine.has_torch():
        yield words.torch_part(torch)
    if torch.usable:
        yield words.trial_part(machine.try_recording())
    else:
        why = "it takes a torch that can be imported, with Gloo"
        yield words.unseen_part(words.TRIAL, why, warning=not torch.error and torch.distributed)
    if torch.distributed and not torch.error:
        yield from _compiled_parts(torch)
    yield from _network_parts(torch, known)


def _compiled_parts(torch: Torch) -> Iterator[Part]:
    from commlens.analyzers.health.sights import sights
    from commlens.cli import machine
    from commlens.render import machine as words

    built = machine.compiled_parts()
    yield words.built_part(built, torch)
    native, plugin = (bool(each.path) for each in built)
    native = native and machine.asks_for_native()
    seen = sights(torch.backends, native, plugin and not torch.other_plugin)
    yield words.sights_part(seen, torch.gpus > 0, torch.other_plugin)


def _network_parts(torch: Torch, known: list[Setting]) -> Iterator[Part]:
    from commlens.analyzers.health.machine import job_here
    from commlens.analyzers.settings.interfaces import gloo_choice, nccl_choice
    from commlens.analyzers.settings.known import settings_to_know, without_launcher
    from commlens.cli import machine
    from commlens.profiler.environment import settings
    from commlens.render import machine as words
    from commlens.render.checks import Conflict, settings_part

    network, values = machine.network(), settings()
    choices = [gloo_choice(values, network.interfaces, network.address)]
    if "nccl" in torch.backends or not torch.backends:
        choices.append(nccl_choice(values, network.interfaces, network.rdma))
    yield words.interfaces_part(network, choices)
    yield words.counters_part(network)
    known += settings_to_know(values, network.interfaces, job_here(torch, network, machine.cores()))
    yield settings_part([Conflict(each) for each in known], without_launcher(values))


def _looked(title: str, look: Callable[[], Part]) -> Part:
    """A part, or why it could not be looked at."""
    from commlens.render.machine import unseen_part

    try:
        return look()
    except OSError as error:
        return unseen_part(title, " ".join(str(error).split()))
