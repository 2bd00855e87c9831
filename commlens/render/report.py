"""The report as a page of text."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass

from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from commlens.analyzers import Report
from commlens.analyzers.unseen import steps_out
from commlens.render.aggregates import aggregates_section, aggregates_title
from commlens.render.budget import budget_section
from commlens.render.collectives import collectives_section, collectives_title
from commlens.render.columns import INDENT, PROSE
from commlens.render.considered import considered_section, considered_title
from commlens.render.costs import costs_section, costs_title
from commlens.render.findings import findings_section, findings_title
from commlens.render.headline import headline
from commlens.render.lanes import contention_section, contention_title, lanes_section, lanes_title
from commlens.render.links import links_section, links_title
from commlens.render.nccl import waits_section, waits_title
from commlens.render.path import path_section, path_title
from commlens.render.progress import progress_section
from commlens.render.ranks import ranks_section, ranks_title
from commlens.render.trust import abstentions_table, evidence_table
from commlens.render.words import counted, how_told, pairs, print_tight
from commlens.trace.schema import IMPORTED as NAMES


@dataclass(frozen=True)
class Section:
    """A part of the report.

    Attributes:
        key: its name in addresses of pages.
        title: what stands above it.
        body: what stands under it.
        prose: sentences, which want shorter lines than tables.
    """

    key: str
    title: str
    body: RenderableType
    prose: bool = False


def print_report(report: Report, console: Console) -> None:
    """Print a report, sections from the answer down to the small print."""
    width = min(console.width, PROSE)
    print_tight(console, header(report), width)
    console.print()
    print_tight(console, Text(headline(report), style="bold"), width)
    for section in sections(report, console):
        _print(console, section)


def sections(report: Report, console: Console, most: int | None = None) -> Iterator[Section]:
    """The sections in which there is something; tables fit the console.

    Args:
        report: of the run.
        console: of a terminal or a page.
        most: collectives on a page; None in a terminal, where words name options that show the rest.
    """
    progress = "How far each rank got (last sequence number it issued, and saw end)"
    budget = "Where a step goes (medians over steps, means over ranks: they need not add up)"
    parts = (
        ("findings", findings_title(report), findings_section(report, console), True),
        ("progress", progress, progress_section(report, console), True),
        ("budget", budget, budget_section(report, console), True),
        ("ranks", ranks_title(report), ranks_section(report, console), False),
        ("lanes", lanes_title(report), lanes_section(report, console), False),
        ("path", path_title(report), path_section(report, console), True),
        ("collectives", collectives_title(report, console, most), collectives_section(report, console, most), False),
        ("contention", contention_title(report), contention_section(report, console), False),
        ("costs", costs_title(report), costs_section(report, console), False),
        ("waits", waits_title(report), waits_section(report, console), False),
        ("links", links_title(report), links_section(report, console), False),
        ("considered", considered_title(report), considered_section(report), True),
        ("aggregates", aggregates_title(report), aggregates_section(report, console), False),
        ("evidence", "What this rests on", evidence_table(report), True),
        ("abstentions", "Not answered, and why", abstentions_table(report.abstentions), True),
    )
    return (Section(key, title, body, prose) for key, title, body, prose in parts if body is not None)


def header(report: Report) -> Table:
    """Which run this is, where from, and how much of it was seen."""
    run, steps = report.run, report.run.steps
    missing = f", {len(run.ranks_missing)} missing" if run.ranks_missing else ""
    if run.ranks_sampled_out:
        missing += f", the others left out on purpose (COMMLENS_RANKS={run.sampled_ranks})"
    out = f"; {said}" if (said := steps_out(steps)) else ""
    software = ", ".join(word for word in (run.backend, run.torch and f"torch {run.torch}") if word)
    hosts = run.hosts[0] if len(run.hosts) == 1 else counted(len(run.hosts), "host")
    rows = {
        "run": run.path if run.path.endswith(run.run_id) or run.imported else f"{run.run_id} ({run.path})",
        **({"from": f"{NAMES[run.imported]}, not recorded by commlens"} if run.imported else {}),
        **({} if run.imported else {"command": shlex.join(run.command) or "not known"}),
        "ranks": f"{len(run.ranks_present)} of {run.world_size}{missing}"
        + (f", on {hosts}" if run.hosts else "")
        + (f" ({software})" if software else ""),
        **({"fix": f"{', '.join(run.fix)} (applied by COMMLENS_FIX)"} if run.fix else {}),
        "steps": f"{steps.analyzed} of {steps.count} analysed"
        + (f", {how_told(steps.how)}" if steps.analyzed else "")
        + out,
    }
    return pairs(rows.items())


def _print(console: Console, section: Section) -> None:
    """A title and what stands under it, indented."""
    console.print()
    print_tight(console, Text(section.title, style="bold cyan"), console.width)
    body = Padding(section.body, (0, 0, 0, INDENT), expand=False)
    print_tight(console, body, min(console.width, PROSE) if section.prose else console.width)
