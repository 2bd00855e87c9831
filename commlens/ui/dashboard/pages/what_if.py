"""What a change would gain, before anybody makes it."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from dash import Dash, Input, Output, State, ctx, dcc, html, no_update

from commlens.analyzers.findings.command import launch_line
from commlens.analyzers.whatif.answers import Scenario
from commlens.render.gain import interval, share_of, signed
from commlens.render.words import milliseconds
from commlens.trace.changes import Change, applicable, joined, parse
from commlens.ui.dashboard.address import Query, write_query
from commlens.ui.dashboard.components import chart, nothing, question, table
from commlens.ui.dashboard.runs import Runs, View
from commlens.ui.figures.predicted import predicted_step

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

NAME, TITLE = "what-if", "What-if"
QUESTION = "What would a change gain, before anybody makes it?"
AS_IS: Final = "as it is"
_CAPS: Final = (AS_IS, "1", "2", "5", "10", "15", "25", "35", "50", "75", "100", "150", "200")
_FACTORS: Final = ("x0.25", "x0.5", "x0.75", AS_IS, "x1.25", "x1.5", "x2", "x3", "x4", "x8")
_HOOKS: Final = (AS_IS, "none", "bf16", "fp16", "powersgd:rank=1", "powersgd:rank=4", "quantize")
_DTYPES: Final = (AS_IS, "float32", "bfloat16", "float16")
_REMOVED: Final = (AS_IS, "1")
# name in addresses -> (change, values, what people read); the first value that is AS_IS is the start.
_SLIDERS: Final = {
    "cap": ("ddp.bucket_cap_mb", _CAPS, "size of DDP's gradient buckets, MiB"),
    "bandwidth": ("link.bandwidth", _FACTORS, "bandwidth of the links"),
    "latency": ("link.latency", _FACTORS, "latency of the links"),
}
_CHOICES: Final = {
    "hook": ("ddp.comm_hook", _HOOKS, "how DDP sends gradients"),
    "dtype": ("wire.dtype", _DTYPES, "data type on the wire"),
    "straggler": ("straggler.remove", _REMOVED, "no rank is slower than the others"),
}
_ALL: Final = {**_SLIDERS, **_CHOICES}


def layout(view: View, query: Query, runs: Runs) -> list[Any]:
    """Controls and the prediction."""
    values = {name: _value(query, name) for name in _ALL}
    simulator = view.examined.simulator()
    if simulator.baseline is None or simulator.refusal is not None:
        return [question(TITLE, QUESTION, f"Nothing is predicted for this run: {simulator.refusal}.")]
    asked = _scenario(view, values)
    ddp = any(model.get("kind") == "DDP" for model in _models(view))
    return [
        html.Div(question(TITLE, QUESTION, _answer(view, asked)), id="what-if-answer"),
        html.Div(
            [
                *(_slider(name, values[name]) for name in _SLIDERS if ddp or name != "cap"),
                *(_choice(name, values[name]) for name in _CHOICES if ddp or name != "hook"),
                *([] if ddp else [html.Div([html.Div(id=f"what-if-{name}") for name in ("cap", "hook")], hidden=True)]),
            ],
            className="sliders",
        ),
        chart(_drawn(view, asked), id="what-if-figure"),
        html.Div(_told(view, asked), id="what-if-body"),
    ]


def _models(view: View) -> list[dict[str, Any]]:
    return [model for rank in view.examined.run.ranks.values() for model in rank.info.get("models") or []]


def _value(query: Query, name: str) -> str:
    known = _ALL[name][1]
    value = query.get(name, AS_IS)
    return value if value in known else AS_IS


def _slider(name: str, value: str) -> html.Label:
    _, values, what = _SLIDERS[name]
    marks = dict(enumerate(values))
    slider = dcc.Slider(
        0, len(values) - 1, step=None, marks=marks, value=values.index(value), id=f"what-if-{name}", included=False
    )
    return html.Label([html.Span(what), slider], className="slider")


def _choice(name: str, value: str) -> html.Label:
    _, values, what = _CHOICES[name]
    options = [{"value": each, "label": "removed" if each == "1" else each} for each in values]
    return html.Label(
        [html.Span(what), dcc.RadioItems(options, value, id=f"what-if-{name}", inline=True, className="radio")],
        className="slider",
    )


def _changes(values: Query) -> list[Change]:
    return [parse(f"{_ALL[name][0]}={value}") for name, value in values.items() if value != AS_IS]


_Asked = tuple[Sequence[Change], Scenario | None]


def _scenario(view: View, values: Query) -> _Asked:
    changes = _changes(values)
    return changes, view.examined.simulator().scenario(changes) if changes else None


def _answer(view: View, asked: _Asked) -> str:
    replayed = view.examined.simulator().replayed()
    changes, found = asked
    if found is None:
        return f"A step takes {milliseconds(replayed.measured_ms)} ms. Choose a change below."
    if found.predicted is None:
        return f"{joined(changes)} is not predicted: {found.abstention}."
    gain = found.predicted.gain_ms
    share = share_of(gain, replayed.measured_ms)
    return (
        f"A step would take {milliseconds(found.predicted.step_ms)} ms instead of {milliseconds(replayed.measured_ms)}:"
        f" a gain of {signed(gain)} ms ({share}), 90 % interval {interval(found.predicted)} ms."
    )


def _drawn(view: View, asked: _Asked) -> Figure:
    return predicted_step(view.examined.simulator().replayed(), asked[1])


def _told(view: View, asked: _Asked) -> list[Any]:
    """What the prediction rests on, and what to type."""
    simulator = view.examined.simulator()
    changes, found = asked
    parts: list[Any] = []
    if found is not None:
        parts += [_commands(view, changes), *(nothing(f"assumed: {each}") for each in found.assumptions)]
        if found.ceiling_ms is not None:
            parts.append(
                nothing(f"Changes of this kind could gain at most {milliseconds(found.ceiling_ms)} ms a step.")
            )
    return [*parts, *(nothing(note) for note in simulator.notes)]


def _commands(view: View, changes: Sequence[Change]) -> html.Div:
    """What to type, to see the same in a terminal and to try it."""
    run = shlex.quote(view.examined.run.source)
    asked = " ".join(f"--set {shlex.quote(str(change))}" for change in changes)
    rows = [["the same in a terminal", f"commlens whatif {run} {asked}"]]
    backend = view.examined.report.run.backend
    fixes = [change for change in changes if applicable(change, backend)]
    if fixes and len(fixes) == len(changes):
        infos = {number: rank.info for number, rank in view.examined.run.ranks.items()}
        command = launch_line(view.examined.run.info, infos)
        rows.append(["try it", f"commlens verify {run} --fix {shlex.quote(joined(fixes))} -- {command}"])
    return html.Div([table((), rows, [False, False]), *([] if len(rows) > 1 else [nothing(_BY_HAND)])])


_BY_HAND = "These changes cannot be tried by commlens: they are made outside the job."


def register(app: Dash, runs: Runs) -> None:
    """A prediction for each move of a control."""

    @app.callback(
        Output("what-if-answer", "children"),
        Output("what-if-figure", "figure"),
        Output("what-if-body", "children"),
        Output("link", "data", allow_duplicate=True),
        *(Input(f"what-if-{name}", "value") for name in _ALL),
        State("run", "value"),
        prevent_initial_call=True,
    )
    def moved(*given: Any) -> Any:
        if len(ctx.triggered) == len(ctx.inputs):  # the page was put there: it shows what its address says
            return (no_update,) * 4
        values = {}
        for name, value in zip(_ALL, given[:-1], strict=True):
            known = _ALL[name][1]
            if name in _SLIDERS and isinstance(value, int) and 0 <= value < len(known):
                value = known[value]
            values[name] = value if value in known else AS_IS
        view = runs.view(given[-1])
        link = write_query({"run": given[-1], **{name: value for name, value in values.items() if value != AS_IS}})
        asked = _scenario(view, values)
        return question(TITLE, QUESTION, _answer(view, asked)), _drawn(view, asked), _told(view, asked), link
