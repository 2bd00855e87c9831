"""The primitives that changes are made of: collectives left out, put in, moved, or of another size."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from commlens.analyzers.whatif.coefficients import Line
from commlens.analyzers.whatif.model import Model, Point
from commlens.analyzers.whatif.nodes import Node


class Placed(NamedTuple):
    """A point, and the row of own times that it has: a row of the model's, or -1 for the step's end."""

    point: Point
    row: int


def points_of(model: Model) -> list[Placed]:
    """The points as they are."""
    return [Placed(point, row) for row, point in enumerate(model.points)]


def with_points(model: Model, placed: Sequence[Placed]) -> Model:
    """The model with these points, in this order; the step's whole own time stays."""
    rows = [*(each.row for each in placed), len(model.points)]
    rows = [len(model.points) if row < 0 else row for row in rows]
    return replace(
        model,
        points=tuple(each.point for each in placed),
        low_ns=model.low_ns[rows],
        high_ns=model.high_ns[rows],
        share=model.share[rows],
    )


def without(model: Model, dropped: Collection[int]) -> Model:
    """The model without some of its collectives.

    Points that follow keep their own time: a rank that no longer stands still for a collective goes on at once.
    """
    kept = [number for number in range(len(model.nodes)) if number not in set(dropped)]
    new = {number: place for place, number in enumerate(kept)}
    placed = [
        Placed(replace(each.point, node=new[each.point.node]), each.row)
        for each in points_of(model)
        if each.point.node in new
    ]
    return replace(with_points(model, placed), nodes=tuple(model.nodes[number] for number in kept))


def replaced(model: Model, new: Mapping[int, Node]) -> Model:
    """The model with other collectives in the place of some."""
    return replace(model, nodes=tuple(new.get(number, node) for number, node in enumerate(model.nodes)))


def parts(model: Model, *names: str) -> list[int]:
    """Numbers of the collectives that carry any of these, in the order of issue."""
    issued = [point.node for point in model.points if not point.waits]
    return [number for number in issued if model.nodes[number].part in names]


def fitted_ns(line: Line, size: float, messages: int = 1) -> float:
    """What the line says of `size` bytes in `messages` messages, ns; never 0."""
    return max(float(messages * line.alpha_ns[0] + line.beta[0] * size), 1.0)


def recast(node: Node, size: float, lines: Sequence[Line] | None = None, messages: int | None = None) -> Node | str:
    """The collective with other bytes, costs or messages; its measured transfers grow as the lines say."""
    messages = node.messages if messages is None else messages
    if (size, messages, lines) == (node.bytes, node.messages, None):
        return node
    old = known_lines(node)
    if isinstance(old, str):
        return old
    new = old if lines is None else list(lines)
    now = [fitted_ns(line, node.bytes, node.messages) for line in old]
    ratio = np.array([fitted_ns(line, size, messages) for line in new]) / now
    measured = node.measured_ns * ratio[:, None]
    return replace(node, bytes=size, measured_ns=measured, lines=tuple(new), messages=messages)


def united(nodes: Sequence[Node]) -> Node | str:
    """One collective with the bytes of several: the first of them, grown."""
    first, size = nodes[0], sum(node.bytes for node in nodes)
    if len(nodes) == 1:
        return first
    lines = known_lines(first)
    if isinstance(lines, str):
        return lines
    apart = np.array([sum(fitted_ns(line, node.bytes) for node in nodes) for line in lines])
    ratio = np.array([fitted_ns(line, size) for line in lines]) / apart
    return replace(first, bytes=size, measured_ns=np.sum([n.measured_ns for n in nodes], axis=0) * ratio[:, None])


def known_lines(node: Node) -> list[Line] | str:
    """What its messages cost; why that is not known."""
    unknown = [why for line in node.lines if (why := line if isinstance(line, str) else line.alone)]
    if unknown:
        return f"the cost of other messages is not known: {unknown[0]}"
    return [line for line in node.lines if isinstance(line, Line)]


def factored(node: Node, latency: float, per_byte: float) -> Node | str:
    """The collective with its latency and its time per byte multiplied, where they can be told apart."""
    if (latency, per_byte) == (1.0, 1.0):
        return node
    lines = known_lines(node)
    if isinstance(lines, str):
        return lines
    return replace(node, latency=node.latency * latency, per_byte=node.per_byte * per_byte)
