"""The report as a page of text."""

from __future__ import annotations

import shlex

from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from commlens.analyzers import Report
from commlens.cli.render import counted, pairs, print_tight
from commlens.cli.render_budget import budget_section
from commlens.cli.render_collectives import collectives_section, collectives_title
from commlens.cli.render_columns import INDENT, PROSE
from commlens.cli.render_considered import considered_section, considered_title
from commlens.cli.render_costs import costs_section, costs_title
from commlens.cli.render_findings import findings_section, findings_title
from commlens.cli.render_headline import headline
from commlens.cli.render_lanes import contention_section, contention_title, lanes_section, lanes_title
from commlens.cli.render_links import links_section, links_title
from commlens.cli.render_nccl import waits_section, waits_title
from commlens.cli.render_path import path_section, path_title
from commlens.cli.render_progress import progress_section
from commlens.cli.render_ranks import ranks_section, ranks_title
from commlens.cli.render_trust import abstentions_table, evidence_table
from commlens.trace.schema import IMPORTED as NAMES


def print_report(report: Report, console: Console) -> None:
    """Print a report, sections from the answer down to the small print."""
    width = min(console.width, PROSE)
    print_tight(console, _header(report), width)
    console.print()
    print_tight(console, Text(headline(report), style="bold"), width)
    _section(console, findings_title(report), findings_section(report, console), prose=True)
    title = "How far each rank got (last sequence number it issued, and saw end)"
    _section(console, title, progress_section(report, console), prose=True)
    title = "Where a step goes (medians over steps, means over ranks: they need not add up)"
    _section(console, title, budget_section(report, console), prose=True)
    _section(console, ranks_title(report), ranks_section(report, console))
    _section(console, lanes_title(report), lanes_section(report, console))
    _section(console, path_title(report), path_section(report, console), prose=True)
    _section(console, collectives_title(report, console), collectives_section(report, console))
    _section(console, contention_title(report), contention_section(report, console))
    _section(console, costs_title(report), costs_section(report, console))
    _section(console, waits_title(report), waits_section(report, console))
    _section(console, links_title(report), links_section(report, console))
    _section(console, considered_title(report), considered_section(report), prose=True)
    _section(console, "What this rests on", evidence_table(report), prose=True)
    _section(console, "Not answered, and why", abstentions_table(report.abstentions), prose=True)


def _header(report: Report) -> Table:
    run, steps = report.run, report.run.steps
    missing = f", {len(run.ranks_missing)} missing" if run.ranks_missing else ""
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
        "steps": f"{steps.analyzed} of {steps.count} analysed" + (f", {steps.how}" if steps.analyzed else ""),
    }
    return pairs(rows.items())


def _section(console: Console, title: str, body: RenderableType | None, prose: bool = False) -> None:
    """A title and what stands under it, indented; nothing where there is nothing."""
    if body is None:
        return
    console.print()
    print_tight(console, Text(title, style="bold cyan"), console.width)
    body = Padding(body, (0, 0, 0, INDENT), expand=False)
    print_tight(console, body, min(console.width, PROSE) if prose else console.width)
