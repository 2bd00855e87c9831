"""A predicted step beside the recorded one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from commlens.analyzers.whatif.answers import Replayed, Scenario
from commlens.ui import palette
from commlens.ui.figures.frame import axis, figure

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


def predicted_step(recorded: Replayed, found: Scenario | None) -> Figure:
    """Bars of the step as it was measured, simulated, and predicted, with the 90 % interval of the prediction.

    Args:
        recorded: the run as it is.
        found: None where nothing was asked; without a prediction only the recorded bars are there.
    """
    names, values = ["measured", "simulated as it was"], [recorded.measured_ms, recorded.replayed_ms]
    colours = [palette.COLOURS[palette.OTHER]] * 2
    low: list[float | None] = [None, None]
    high: list[float | None] = [None, None]
    if found is not None and found.predicted is not None:
        # An interval of the gain is one of the step, turned round.
        predicted, measured = found.predicted, recorded.measured_ms or 0
        names.append("predicted")
        values.append(predicted.step_ms)
        colours.append(palette.BLUE)
        low.append(max(0.0, predicted.step_ms - (measured - predicted.high_ms)))
        high.append(max(0.0, (measured - predicted.low_ms) - predicted.step_ms))
    bars = {
        "type": "bar",
        "orientation": "h",
        "y": names,
        "x": values,
        "marker": {"color": colours},
        "error_x": {"type": "data", "symmetric": False, "array": high, "arrayminus": low, "thickness": 2, "width": 8},
        "hovertemplate": "%{y}: %{x:.4~g} ms<extra></extra>",
    }
    return figure(
        [bars],
        "Bars of the measured, the simulated and the predicted step.",
        90 + 46 * len(names),
        showlegend=False,
        xaxis=axis("ms a step", rangemode="tozero"),
        yaxis=axis("", autorange="reversed", showgrid=False),
    )
