"""Costs of collectives that were not measured, from the textbook's forms and the lines that were fitted.

A ring of p ranks takes, for a vector of n bytes (Thakur, Rabenseifner and Gropp, 2005; Chan et al., 2007):

    all_reduce                    2 (p-1) alpha + 2 (p-1)/p n beta
    all_gather, reduce_scatter      (p-1) alpha +   (p-1)/p n beta
    all_to_all (pairwise)           (p-1) alpha +   (p-1)/p n beta
    broadcast (pipelined chain)     (p-1) alpha +           n beta

so all_reduce = reduce_scatter + all_gather, and a fitted line of p ranks is carried over to q by the ratios below.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final, NamedTuple

from commlens.analyzers.whatif.coefficients import Line
from commlens.analyzers.whatif.nodes import Link

ESTIMATE: Final = "a model-based estimate: costs of other groups come from the textbook's forms, interval twice as wide"
HALVES: Final = "an all_reduce is taken to cost what a reduce_scatter and an all_gather do"
_RING = frozenset({"all_gather", "reduce_scatter", "all_to_all"})
_CHAIN = frozenset({"broadcast", "reduce", "barrier"})
_HALF = ("all_gather", "reduce_scatter")


class Factors(NamedTuple):
    """What alpha and beta are multiplied by."""

    latency: float
    per_byte: float


class Derived(NamedTuple):
    """A line, and what it rests on ("" where it was fitted)."""

    line: Line
    assumption: str


def shape(op: str, ranks: int) -> Factors | None:
    """What a group of `ranks` multiplies one message's latency and one link's time per byte by; None where unknown."""
    ring = (ranks - 1) / ranks
    if op == "all_reduce":
        return Factors(2.0 * (ranks - 1), 2 * ring)
    if op in _RING:
        return Factors(ranks - 1.0, ring)
    return Factors(ranks - 1.0, float(ranks > 1)) if op in _CHAIN else None


def of_ranks(op: str, before: int, after: int) -> Factors | str:
    """From a group of `before` ranks to one of `after`, at the same bytes."""
    if before < 2:
        return "a group of one rank tells nothing of larger ones"
    old, new = shape(op, before), shape(op, after)
    if old is None or new is None:
        return f"how a {op} grows with the ranks is not known"
    return Factors(new.latency / old.latency, new.per_byte / old.per_byte)


def carried_over(line: Line, op: str, to: str, ranks: int) -> Line | None:
    """The line of another operation in the same group, by the forms above; None where there is no form."""
    old, new = shape(op, ranks), shape(to, ranks)
    if old is None or new is None or ranks < 2:
        return None
    return multiplied(line, Factors(new.latency / old.latency, new.per_byte / old.per_byte))


def line_of(link: Link, op: str) -> Derived | str:
    """What messages of an operation cost on a link: fitted, else from the identity above."""
    own = link.lines.get(op)
    if isinstance(own, Line):
        return Derived(own, "")
    fitted = {name: line for name, line in link.lines.items() if isinstance(line, Line)}
    if op in _HALF:
        if "all_reduce" in fitted:
            return Derived(multiplied(fitted["all_reduce"], Factors(0.5, 0.5)), HALVES)
        other = [fitted[name] for name in _HALF if name in fitted]
        return Derived(other[0], HALVES) if other else _unknown(link, op)
    if op == "all_reduce" and any(name in fitted for name in _HALF):
        halves = [fitted.get(name) or fitted[_HALF[0] if name == _HALF[1] else _HALF[1]] for name in _HALF]
        return Derived(added(*halves), HALVES)
    return _unknown(link, op)


def _unknown(link: Link, op: str) -> str:
    why = link.lines.get(op)
    return f"what a {op} costs there is not known: {why if isinstance(why, str) else 'no transfer was measured'}"


def multiplied(line: Line, factors: Factors) -> Line:
    """The line with its latency and its time per byte multiplied."""
    return replace(line, alpha_ns=line.alpha_ns * factors.latency, beta=line.beta * factors.per_byte)


def added(*lines: Line) -> Line:
    """One after the other, for the same bytes."""
    return Line(
        sum((line.alpha_ns for line in lines[1:]), lines[0].alpha_ns),
        sum((line.beta for line in lines[1:]), lines[0].beta),
        max(line.low_bytes for line in lines),
        min(line.high_bytes for line in lines),
        any(line.calibrated for line in lines),
        next((line.borrowed for line in lines if line.borrowed), ""),
    )
