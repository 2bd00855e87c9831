"""What collectives take, each alone on its links: all of a step, and many simulations, at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from commlens.analyzers.grouped import Floats
from commlens.analyzers.intervals import Ints
from commlens.analyzers.whatif.coefficients import DRAWS, Line
from commlens.analyzers.whatif.model import Model
from commlens.analyzers.whatif.nodes import Link, Node


class NodeCosts:
    """Time of some collectives, each alone on each of its links: one row each, those of a collective together.

    That of gradients is the cost model's. Others take what they took in the recorded step, scaled by what the cost
    model says of a change of their link (and by its draws); a change of a link without a cost model gives NaN.

    Args:
        model: of the step.
        numbers: which of its collectives.
        draws: entry of the coefficients in each simulation, shape (batch,).

    Attributes:
        bounds: where the rows of each collective begin, with the end, shape (collectives + 1,).
    """

    def __init__(self, model: Model, numbers: Sequence[int], draws: Ints) -> None:
        nodes = [model.nodes[number] for number in numbers]
        self.bounds = np.cumsum([0, *(node.links.size for node in nodes)])
        lines = _Lines(model.links)
        self._line = np.array([number for node in nodes for number in lines.of(node)], np.int64)
        told = [isinstance(line, Line) for node in nodes for line in node.lines]
        self._time_ns = np.stack(lines.time_ns)[:, draws]
        self._usual_ns = np.array(lines.usual_ns)[self._line]
        self._taken_ns = np.concatenate([np.zeros((0, model.steps)), *(node.measured_ns for node in nodes)])
        reduces = np.repeat(np.array([node.reduces for node in nodes], bool), np.diff(self.bounds))
        fitted = np.array(told, bool)
        fitted &= reduces | ~(self._usual_ns > 0) | ~np.isfinite(self._taken_ns).all(axis=1)
        self._taken_ns[fitted], self._usual_ns[fitted] = 1.0, 1.0

    def at(self, steps: Ints) -> Floats:
        """Time in each simulation, ns, shape (rows, batch).

        Args:
            steps: the recorded step of each, shape (batch,).
        """
        found = np.take(self._time_ns, self._line, axis=0)
        found *= np.take(self._taken_ns, steps, axis=1)
        found /= self._usual_ns[:, None]
        return found

    def least_ns(self) -> Floats:
        """What each collective takes at least on any link, in any step and simulation; NaN where not known."""
        time, taken = self._time_ns.min(axis=1, initial=np.inf)[self._line], self._taken_ns.min(axis=1)
        least = np.where((time < 0) | (taken < 0), -np.inf, time * taken / self._usual_ns)
        return np.asarray(np.minimum.reduceat(least, self.bounds[:-1])) if least.size else least


class _Lines:
    """What the cost model says of messages, once for all that are alike.

    Attributes:
        time_ns: of each kind of message, shape (1 + DRAWS,) each; 1 where no cost is known.
        usual_ns: what it says of the recorded link, 1 where no cost is known.
    """

    def __init__(self, links: Sequence[Link]) -> None:
        self._links = links
        self._seen: dict[tuple[object, ...], list[int]] = {}
        # Without a cost model a transfer takes as long as it did, and nobody knows how long where its link changes.
        self.time_ns, self.usual_ns = [np.ones(1 + DRAWS), np.full(1 + DRAWS, np.nan)], [1.0, 1.0]

    def of(self, node: Node) -> list[int]:
        """Which kind of message a collective sends on each of its links."""
        lines = tuple(map(id, node.lines))
        key = (lines, node.links.tobytes(), node.bytes, node.messages, node.latency, node.per_byte)
        if key not in self._seen:
            links = [self._links[number] for number in node.links]
            self._seen[key] = [self._added(node, link, line) for link, line in zip(links, node.lines, strict=True)]
        return self._seen[key]

    def _added(self, node: Node, link: Link, line: Line | str) -> int:
        if isinstance(line, str):
            return int(link.changed or node.rescaled)
        self.time_ns.append(_time_ns(node, link, line))
        self.usual_ns.append(float(node.messages * line.alpha_ns[0] + line.beta[0] * node.bytes))
        return len(self.time_ns) - 1


def _time_ns(node: Node, link: Link, line: Line) -> Floats:
    """What the cost model says, shape (1 + DRAWS,)."""
    alpha = line.alpha_ns if link.alpha_ns is None else np.full_like(line.alpha_ns, link.alpha_ns)
    beta = line.beta if link.gb_s is None else np.full_like(line.beta, 1 / link.gb_s)
    return np.asarray(
        node.messages * node.latency * alpha * link.latency + node.per_byte * beta / link.speed * node.bytes
    )
