"""The report as one HTML file that needs nothing else: no network, no server; its words and tables no JavaScript."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from commlens._version import __version__
from commlens.analyzers import Report
from commlens.render.collectives import TOP_COLLECTIVES
from commlens.render.headline import headline
from commlens.render.progress import BROKEN
from commlens.render.report import Section, header, sections
from commlens.ui.blocks import blocks, wide_console
from commlens.ui.cards import cards
from commlens.ui.figures import frame
from commlens.ui.markup import escaped, markup
from commlens.ui.placed import PLACED, Placed
from commlens.ui.scripts import asset, packed_plotly, plotly_source, policy

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

_FIRST = ("budget", "findings")  # after the verdict; the others as in the text report
_FIRST_OF_BROKEN = ("findings", "progress", "budget")
_WORDS_ALONE = "Figures are drawn with JavaScript; words and tables are whole without them."
_ESCAPES = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"})


def write_html(report: Report, path: str | Path) -> None:
    """Write the report to a file, over one that is there.

    Raises:
        OSError: it cannot be written.
    """
    Path(path).write_text(to_html(report), encoding="utf-8")


def to_html(report: Report) -> str:
    """The whole page."""
    shown = ordered(report)
    parts = "\n".join(_section(report, section) for section in shown)
    scripts = _scripts() if "<figure" in parts else ()
    return "\n".join(
        [
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy(*scripts)}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="color-scheme" content="light dark">',
            f'<meta name="generator" content="commlens {__version__}">',
            f"<title>{escaped(f'commlens: {report.run.run_id}')}</title>",
            f"<style>\n{asset('page.css')}{asset('report.css')}</style>\n"
            "<noscript><style>figure { display: none }</style></noscript>\n</head>\n<body>",
            f'<a class="skip" href="#verdict">Skip to the report</a>\n<div class="page">\n{_contents(shown)}\n<main>',
            f"{_verdict(report)}\n{parts}",
            f'<footer class="quiet">Made by commlens {__version__}. Everything on this page is in this file.</footer>',
            "</main>\n</div>",
            *([f'<script type="text/plain" id="plotly-js">{packed_plotly()}</script>'] if scripts else []),
            *([f"<script>{scripts[0]}</script>"] if scripts else []),
            "</body>\n</html>\n",
        ]
    )


def _scripts() -> tuple[str, ...]:
    """The page's own, and the one that it unpacks."""
    return asset("report.js"), plotly_source()


def ordered(report: Report) -> list[Section]:
    """The sections of the text report, where a step goes and what was found first; of a job that stood, who stood."""
    found = list(sections(report, wide_console(), TOP_COLLECTIVES))
    if all(section.key != "budget" for section in found):
        found.append(Section("budget", "Where a step goes", ""))
    broken = any(finding.id in BROKEN for finding in report.findings)
    first = _FIRST_OF_BROKEN if broken else _FIRST
    return sorted(found, key=lambda section: first.index(section.key) if section.key in first else len(first))


def embedded(figure: Figure) -> str:
    """A figure's JSON as it may stand within a script element."""
    return json.dumps(figure.to_plotly_json(), separators=(",", ":")).translate(_ESCAPES)


def _contents(shown: list[Section]) -> str:
    links = "".join(f'<li><a href="#{section.key}">{escaped(_short(section.title))}</a></li>' for section in shown)
    return (
        f'<nav aria-label="Contents"><p class="brand">commlens</p>'
        f'<ul><li><a href="#verdict">Verdict</a></li>{links}</ul></nav>'
    )


def _short(title: str) -> str:
    """A title without what qualifies it."""
    return title.split(" (")[0].split(":")[0].split(", group ")[0]


def _title(title: str) -> str:
    """What qualifies a title stands back behind it."""
    name = _short(title)
    return escaped(name) + (f'<span class="quiet">{escaped(title[len(name) :])}</span>' if name != title else "")


def _verdict(report: Report) -> str:
    return (
        '<header id="verdict">'
        f"<h1>{escaped(report.run.run_id)}</h1>"
        f'<p class="verdict">{escaped(headline(report))}</p>'
        f"{markup(blocks(header(report)))}"
        f'<noscript><p class="quiet">{_WORDS_ALONE}</p></noscript></header>'
    )


def _section(report: Report, section: Section) -> str:
    body = cards(report) if section.key == "findings" else ""
    words = body or markup(blocks(section.body))
    kind = " findings" if body else ""
    return (
        f'<section id="{section.key}" aria-labelledby="title-{section.key}">'
        f'<h2 id="title-{section.key}">{_title(section.title)}</h2><div class="beside{kind}">'
        + (f'<div class="words">{words}</div>' if words else "")
        + "".join(_figures(report, section.key))
        + "</div></section>"
    )


def _figures(report: Report, key: str) -> Iterator[str]:
    """Places for the browser to draw in, then why there is nothing to draw, each reason once."""
    missing: dict[str, list[str]] = {}
    for placed in PLACED.get(key, ()):
        drawn = placed.draw(report)
        if frame.empty(drawn):
            missing.setdefault(frame.alt(drawn), []).append(placed.title)
        else:
            yield _figure(placed, drawn)
    for reason, titles in missing.items():
        yield f'<p class="quiet none">{escaped(", ".join(titles))}: {escaped(reason[0].lower() + reason[1:])}</p>'


def _figure(placed: Placed, drawn: Figure) -> str:
    said = escaped(frame.alt(drawn))
    return (
        f'<figure id="figure-{placed.key}"><figcaption>{escaped(placed.title)}</figcaption>'
        f'<div class="plot" role="img" aria-label="{said}" style="min-height:{drawn.layout.height}px"></div>'
        f'<script type="application/json">{embedded(drawn)}</script>'
        "</figure>"
    )
