"""What stands around every page: the run, the list of pages, the theme, and messages."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any

from dash import dcc, html

from commlens.ui.dashboard.address import write_query


def shell(pages: Sequence[ModuleType], keys: Sequence[str], unlisted: int = 0) -> html.Div:
    """The frame; the page itself is put into it by its address.

    Args:
        pages: what there is to choose from.
        keys: the runs' names.
        unlisted: how many runs are not among them.
    """
    return html.Div(
        [
            dcc.Location(id="address", refresh=False),
            dcc.Store(id="link"),  # what the address should say, as controls were moved
            dcc.Store(id="linked"),
            dcc.Store(id="version", data=0),
            dcc.Store(id="grown"),
            dcc.Interval(id="clock", interval=2000),
            html.A("To the page", href="#page", className="skip"),
            html.Header(
                [
                    html.Span("commlens", className="brand"),
                    html.Label(
                        [
                            html.Span("run", className="dim"),
                            _choice(keys, unlisted),
                        ],
                        className="choose",
                    ),
                    html.Span(id="state", className="state", role="status"),
                    html.Button("light / dark", id="theme", className="theme", title="light or dark page"),
                ],
                className="head",
            ),
            html.Nav(id="nav", className="nav"),
            html.Div(id="message", role="alert"),
            html.Main(id="page", tabIndex="-1", className="page"),
        ],
        className="shell",
    )


def _choice(keys: Sequence[str], unlisted: int) -> dcc.Dropdown:
    options: list[Any] = [{"label": key, "value": key} for key in keys]
    if unlisted:
        told = f"{unlisted:,} older runs are not listed; start the dashboard with their folders"
        options.append({"label": told, "value": "", "disabled": True})
    return dcc.Dropdown(options, id="run", clearable=False, className="run", maxHeight=400)


def navigation(pages: Sequence[ModuleType], shown: str, key: str) -> list[Any]:
    """A link a page, the one that is shown marked; the run goes along."""
    return [
        dcc.Link(
            page.TITLE,
            href=f"/{page.NAME}{write_query({'run': key})}",
            className="here" if shown == page.NAME else "",
            title=page.QUESTION,
        )
        for page in pages
    ]
