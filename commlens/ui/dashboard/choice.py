"""Which ranks a page shows: a field to name some, instead of lists of thousands; and addresses that name them."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from dash import dcc, html

from commlens.analyzers import Report
from commlens.analyzers.at_scale.chosen import HOW, chosen
from commlens.analyzers.at_scale.many import MANY, is_many
from commlens.errors import UsageError
from commlens.render.words import counted
from commlens.ui.dashboard.address import Query, write_query

FIRST: Final = 32  # lines of many ranks, before some were chosen: the worst should fit a screen


class Choice(NamedTuple):
    """Chosen ranks.

    Attributes:
        among: their numbers, None where all are meant.
        told: which they are, or why there are none of that name; "" for all.
    """

    among: frozenset[int] | None
    told: str

    def most(self, report: Report) -> int:
        """Lines that a page shows: of many ranks fewer until some were chosen."""
        return FIRST if self.among is None and is_many(report) else MANY


def find_choice(report: Report, text: str | None) -> Choice:
    """The ranks that a text names, as `commlens report --ranks` reads it; all where it names none."""
    if not text or not text.strip():
        return Choice(None, "")
    try:
        found = frozenset(budget.rank for budget, _ in chosen(report, text))
    except UsageError as error:
        return Choice(None, f"All ranks are shown: {error}.")
    return Choice(found, f"{counted(len(found), 'rank')} of {len(report.ranks):,}: {text.strip()}.")


def ranks_field(report: Report, query: Query, id: str) -> Any:
    """A field to name ranks; not to be seen where they are few and none was named."""
    field = dcc.Input(
        query.get("ranks", ""), id=id, debounce=True, maxLength=500, placeholder="17, 512-519, a host, group=NAME"
    )
    label = html.Label(
        [html.Span("ranks, host or group", className="dim"), field], className="labelled ranks", title=HOW
    )
    return label if is_many(report) or query.get("ranks") else html.Div(label, hidden=True)


def ranks_address(page: str, key: str, ranks: str, **more: str) -> str:
    """The address of a page that shows some ranks of a run."""
    return f"/{page}{write_query({'run': key, 'ranks': ranks, **more})}"


def host_address(page: str, key: str, host: str) -> str:
    """Of the ranks of a host."""
    return ranks_address(page, key, f"host={host}")


def group_address(page: str, key: str, group: str) -> str:
    """Of the ranks of a process group."""
    return ranks_address(page, key, f"group={group}")
