"""The units of FSDP in a recorded run: which all-gathers and reduce-scatters belong together.

FSDP2 (torch/distributed/fsdp/_fully_shard) gathers each unit's parameters before its forward. Before its backward it
gathers them again, where they were given up, and reduce-scatters its gradients after; backward goes through the
units in the reversed order. The outermost module's own parameters are kept by default.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from commlens.analyzers.intervals import Ints
from commlens.analyzers.whatif.edited import replaced
from commlens.analyzers.whatif.model import Model
from commlens.analyzers.whatif.nodes import GATHER, REGATHER, SCATTER, Node
from commlens.analyzers.whatif.thread import Thread
from commlens.analyzers.whatif.units import Units
from commlens.trace.schema import MISSING

_UNLIKE = "all-gathers and reduce-scatters of the step do not come as FSDP2 issues them"
_AT_ONCE_NS = 100_000  # own time between issue and wait of a call that blocks
_Part = tuple[str, int]


def find_units(
    model: Model, threads: Sequence[Thread], rows: Sequence[Ints], infos: Mapping[int, Mapping[str, Any]]
) -> Model:
    """The model with its FSDP units; as it is where there are none."""
    kinds = {str(each.get("kind")) for info in infos.values() for each in info.get("models") or ()}
    numbers = [n for n, node in enumerate(model.nodes) if node.op in ("all_gather", "reduce_scatter")]
    if "FSDP2" not in kinds or not any(model.nodes[n].op == "reduce_scatter" for n in numbers):
        return model
    link = int(next(model.nodes[n].links[0] for n in numbers if model.nodes[n].op == "reduce_scatter"))
    numbers = [n for n in numbers if link in model.nodes[n].links]
    found = _labelled([model.nodes[n] for n in numbers], threads[0].backward[rows[0][numbers, 0]])
    if found is None:
        return replace(model, units=Units(0, link, refusal=_UNLIKE))
    new = {n: replace(model.nodes[n], part=part, unit=unit) for n, (part, unit) in zip(numbers, found, strict=True)}
    count = 1 + max(unit for _, unit in found)
    return replace(replaced(model, new), units=Units(count, link, _synchronous(model, numbers)))


def _labelled(nodes: Sequence[Node], backward: Ints) -> list[_Part] | None:
    """What each collective carries and for which unit; None where they come in another pattern."""
    labels: list[_Part] = []
    ahead: list[int] = []
    for begin, end in _rounds(backward):
        inside = list(range(begin, end))
        gathers = [n for n in inside if backward[n] == MISSING]
        again = [n for n in inside if backward[n] != MISSING and nodes[n].op == "all_gather"]
        scatters = [n for n in inside if backward[n] != MISSING and nodes[n].op == "reduce_scatter"]
        if len(gathers) + len(again) + len(scatters) < len(inside) or any(nodes[n].op != "all_gather" for n in gathers):
            return None
        ahead = ahead or gathers  # units that were kept since the last micro-batch are not gathered
        count = len(ahead)
        sizes = [nodes[n].bytes for n in ahead]
        if (gathers and len(gathers) != count) or len(scatters) not in (0, count):
            return None
        units = _again(sizes, [nodes[n].bytes for n in again])
        if units is None or not _alike(sizes, [nodes[n].bytes for n in reversed(scatters)]):
            return None
        own = {n: (GATHER, place) for place, n in enumerate(gathers)}
        own |= {n: (REGATHER, unit) for n, unit in zip(again, units, strict=True)}
        own |= {n: (SCATTER, count - 1 - place) for place, n in enumerate(scatters)}
        labels += [own[n] for n in inside]
    return labels


def _rounds(backward: Ints) -> list[tuple[int, int]]:
    """Begin and end of each forward with its backward: one begins where the collectives of a backward end."""
    inside = backward != MISSING
    begins = [0, *(np.flatnonzero(inside[:-1] & (backward[1:] != backward[:-1])) + 1).tolist()]
    return list(zip(begins, [*begins[1:], backward.size], strict=True))


def _again(sizes: Sequence[float], again: Sequence[float]) -> list[int] | None:
    """Units that are gathered again: from the last on, those kept left out; None where sizes do not fit."""
    found: list[int] = []
    unit = len(sizes)
    for size in again:
        unit = next((each for each in range(unit - 1, -1, -1) if sizes[each] == size), -1)
        if unit < 0:
            return None
        found.append(unit)
    return found


def _alike(gathered: Sequence[float], scattered: Sequence[float]) -> bool:
    """Whether gradients are as large as parameters, but for their data type."""
    if not scattered:
        return True
    ratio = np.array(scattered) / np.maximum(gathered, 1)
    return bool(np.allclose(ratio, ratio[0], rtol=0.02))


def _synchronous(model: Model, numbers: Sequence[int]) -> bool:
    """Whether they are waited for where they are issued.

    A call that blocks has nothing of the thread's own between issue and wait, but what a busy core puts there now and
    then, on one rank; work that an asynchronous one leaves room for is between them on every rank. So the least of
    the ranks counts, and of each operation the median: reductions are a small part where gradients are accumulated.
    """
    own = np.median(model.low_ns, axis=2)
    gaps: dict[str, list[float]] = {}
    for number in numbers:
        places = [place for place, point in enumerate(model.points) if point.node == number]
        if len(places) != 2:
            return False
        gaps.setdefault(model.nodes[number].op, []).append(float((own[places[1]] - own[places[0]]).min()))
    return all(np.median(each) <= _AT_ONCE_NS for each in gaps.values())
