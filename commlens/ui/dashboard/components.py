"""Words, tables and figures as Dash shows them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from dash import dcc, html
from rich.console import RenderableType

from commlens.analyzers import Finding, Report
from commlens.ui.blocks import QUIET, Block, Line, Table, Words, blocks
from commlens.ui.cards import SEVERITIES, card_parts
from commlens.ui.figures.frame import alt
from commlens.ui.markup import row_class

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from commlens.render.report import Section

# plotly offers to upload charts to its makers unless told not to.
_ALL = 1_000  # lines of evidence, actions: a page has room
_BUTTONS = ["sendChartToCloud", "sendDataToCloud", "lasso2d", "select2d", "autoScale2d"]
_CONFIG = {"displaylogo": False, "responsive": True, "plotlyServerURL": "", "modeBarButtonsToRemove": _BUTTONS}


def chart(shown: Figure, id: str | None = None, **config: Any) -> html.Figure:
    """A figure with its description."""
    settings: Any = {**_CONFIG, **config}
    options: dict[str, Any] = {"id": id} if id is not None else {}
    graph = dcc.Graph(figure=shown, config=settings, **options)
    described: dict[str, Any] = {"aria-label": alt(shown)}
    return html.Figure(graph, className="chart", role="img", **described)


def section(part: Section, *beside: Any) -> html.Section:
    """A section of the report: its title, figures, then its words and tables."""
    return html.Section([html.H2(part.title), *beside, *words(part.body)], id=f"section-{part.key}")


def finding(report: Report, found: Finding, place: int) -> html.Article:
    """A finding as a card: what it is, what it costs, what says so, what to do."""
    severity = found.severity if found.severity in SEVERITIES else "low"
    title: list[Any] = [
        html.Span(str(place), className="mark"),
        " ",
        found.title,
        " ",
        html.Span(f"severity {severity}", className="badge"),
    ]
    parts = [_block(block) for block in card_parts(report, found, str(place), _ALL, _ALL)]
    return html.Article([html.H3(title), *parts], className=f"card {severity}")


def words(body: RenderableType) -> list[Any]:
    """What render made, as components."""
    return [_block(block) for block in blocks(body)]


def linked(body: RenderableType, addresses: Sequence[str | None]) -> list[Any]:
    """What render made, the first cell of each row of its first table a link.

    Args:
        body: with a table.
        addresses: of its rows in their order, None where a row has none.
    """
    found = blocks(body)
    first = next(place for place, block in enumerate(found) if isinstance(block, Table))
    return [_table(block, addresses) if place == first else _block(block) for place, block in enumerate(found)]  # type: ignore[arg-type]


def _block(block: Block) -> Any:
    return _table(block) if isinstance(block, Table) else _line(block)


def _line(line: Line) -> html.P:
    quiet = all(run.emphasis == QUIET for run in line.words)
    return html.P([_run(run) for run in line.words], className="quiet" if quiet else "")


def _run(run: Words) -> html.Span | str:
    return html.Span(run.text, className=run.emphasis) if run.emphasis else run.text


def _table(table: Table, addresses: Sequence[str | None] = ()) -> html.Div:
    head = [html.Thead(html.Tr([_head(text, table.numbers[place]) for place, text in enumerate(table.head)]))]
    rows = [_row(table, row, address) for row, address in zip_longest(table.rows, addresses)]
    kind = "ruled" if table.head else "pairs" if len(table.numbers) == 2 and table.named else "plain"
    return html.Div(html.Table([*(head if table.head else []), html.Tbody(rows)], className=kind), className="scroll")


def _row(table: Table, row: Sequence[Words], address: str | None = None) -> html.Tr:
    cells = [_cell(table, place, cell, None if place else address) for place, cell in enumerate(row)]
    return html.Tr(cells, className=row_class(row[0].text) if table.named and row else "")


def _head(text: str, number: bool) -> html.Th:
    return html.Th(text.replace("\n", " "), scope="col", className="number" if number else "")


def _cell(table: Table, place: int, cell: Words, address: str | None = None) -> html.Th | html.Td:
    classes = " ".join(each for each in ("number" if table.numbers[place] else "", cell.emphasis) if each)
    if table.named and place == 0 and cell.text:
        shown = cell.text if address is None else dcc.Link(cell.text, href=address)
        return html.Th(shown, scope="row", className=classes)
    return html.Td(cell.text, className=classes)


def table(
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    numbers: Sequence[bool],
    named: bool = True,
    addresses: Sequence[str] = (),
) -> html.Div:
    """A table of plain cells; where there are addresses the first cell of each row is a link to its own."""
    cells = tuple(tuple(Words(cell) for cell in row) for row in rows)
    return _table(Table(tuple(head), cells, tuple(numbers), named), addresses)


def question(title: str, asked: str, answer: str) -> html.Div:
    """What a page asks, and the answer in a sentence."""
    return html.Div(
        [html.H1(title), html.P(asked, className="quiet"), html.P(answer, className="verdict")], className="top"
    )


def nothing(text: str) -> html.P:
    """Why there is nothing here."""
    return html.P(text, className="quiet")
