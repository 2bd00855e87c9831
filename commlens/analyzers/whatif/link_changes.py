"""Changes of what messages cost: the link, and the bytes that each element takes on it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from commlens.analyzers.whatif.coefficients import Line
from commlens.analyzers.whatif.edited import fitted_ns
from commlens.analyzers.whatif.model import Altered, Model
from commlens.analyzers.whatif.nodes import ITEM_BYTES, Node
from commlens.trace.changes import Scale

_ALONE = "messages whose few bytes are lost in the scatter of what they take are latency, whatever the bandwidth is"
FREE_CASTS = "casting gradients to 16 bits and back is taken to cost nothing"


def bandwidth(model: Model, value: Scale) -> Altered:
    new = {"speed": value.number} if value.relative else {"gb_s": value.number}
    return _relinked(model, **new)


def latency(model: Model, value: Scale) -> Altered:
    new = {"latency": value.number} if value.relative else {"alpha_ns": value.number * 1e3}
    return _relinked(model, **new)


def _relinked(model: Model, **new: float) -> Altered:
    unknown = [line for node in model.nodes for line in node.lines if isinstance(line, str) and node.bytes]
    if unknown:
        return f"what is latency and what bandwidth is not known: {unknown[0]}"
    links = tuple(replace(link, **new) for link in model.links)  # type: ignore[arg-type]
    return replace(model, links=links).touching("transfer").assuming(*_latency_alone(model))


def _latency_alone(model: Model) -> list[str]:
    """What is taken of messages of a few bytes, where there are any."""
    return [_ALONE] if any(isinstance(line, Line) and line.alone for n in model.nodes for line in n.lines) else []


def wire_dtype(model: Model, value: str) -> Altered:
    size = ITEM_BYTES[value]
    gradients = model.gradients
    if gradients is not None and gradients.refusal is None:
        model = replace(model, gradients=replace(gradients, item_bytes=size))
    nodes = tuple(node if node.reduces else _shrunk(node, value) for node in model.nodes)
    return replace(model, nodes=nodes).touching("transfer").assuming(FREE_CASTS, *_latency_alone(model))


def _shrunk(node: Node, dtype: str) -> Node:
    """The collective with elements of that type on the wire, where they were larger."""
    own, item_bytes = ITEM_BYTES.get(node.dtype, 0), ITEM_BYTES[dtype]
    if own <= item_bytes:
        return node
    size = node.bytes * item_bytes / own
    ratio = [_ratio(line, size, node) for line in node.lines]
    return replace(node, bytes=size, dtype=dtype, measured_ns=node.measured_ns * np.array(ratio)[:, None])


def _ratio(line: Line | str, size: float, node: Node) -> float:
    if isinstance(line, str):
        return float("nan")
    return fitted_ns(line, size, node.messages) / fitted_ns(line, node.bytes, node.messages)
