"""A report in a notebook's cell: the words and tables of the one-file report, most of them folded, and no script."""

from __future__ import annotations

from commlens.analyzers import Report
from commlens.render.headline import headline
from commlens.render.report import Section, header
from commlens.ui.blocks import blocks
from commlens.ui.cards import cards
from commlens.ui.html import ordered
from commlens.ui.markup import escaped, markup
from commlens.ui.scripts import asset

_OPEN = ("budget", "findings")
_FIGURES = "Figures: commlens.ui.figures.budget(report), .steps, .ranks, .bandwidth, .overlap, .critical_path, .links"


def fragment(report: Report) -> str:
    """HTML to stand within another page."""
    return (
        f'<div class="commlens"><style>{asset("notebook.css")}</style>'
        f'<p class="verdict">{escaped(headline(report))}</p>'
        f"<details><summary>Run</summary>{markup(blocks(header(report)))}</details>"
        + "".join(_section(report, section) for section in ordered(report))
        + f'<p class="quiet">{_FIGURES}</p></div>'
    )


def _section(report: Report, section: Section) -> str:
    words = (cards(report) if section.key == "findings" else "") or markup(blocks(section.body))
    if not words:
        return ""
    state = " open" if section.key in _OPEN else ""
    return f"<details{state}><summary>{escaped(section.title)}</summary>{words}</details>"
