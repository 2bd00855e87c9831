"""Changes of what FSDP does with its units: when parameters are gathered, how many at once, and in which type.

A sharded model moves 3n bytes a step (all-gather for forward, for backward, reduce-scatter), 2n where parameters are
kept between the two: Zhao et al., "PyTorch FSDP" (VLDB 2023), and Rajbhandari et al., "ZeRO" (SC 2020).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

from commlens.analyzers.numerals import plain
from commlens.analyzers.whatif.edited import Placed, parts, points_of, recast, replaced, united, with_points
from commlens.analyzers.whatif.host_work import spared
from commlens.analyzers.whatif.link_changes import FREE_CASTS
from commlens.analyzers.whatif.model import Altered, Model, Point
from commlens.analyzers.whatif.nodes import GATHER, ITEM_BYTES, REGATHER, SCATTER, Node
from commlens.analyzers.whatif.units import Units

_NO_UNITS = "no FSDP2 model gathers its parameters in this run"
_BLOCKING = "all-gathers block the thread that issues them here (FSDP2 on the CPU): issued earlier, they hide nothing"


def units_of(model: Model) -> Units | str:
    """The model's FSDP units, or why they cannot be changed."""
    if model.units is None:
        return _NO_UNITS
    return model.units.refusal or model.units


def reshard_after_forward(model: Model, value: bool) -> Altered:
    """Without: no all-gathers in backward, 3n -> 2n bytes."""
    units = units_of(model)
    if isinstance(units, str):
        return units
    again = parts(model, REGATHER)
    if value:
        return model if again else "what gathering a second time costs is told only by a run that does"
    if not again:
        return model
    size = sum({model.nodes[n].unit: model.nodes[n].bytes for n in again}.values())
    memory = f"there is memory for {plain(size / 1e6)} MB of parameters kept between forward and backward"
    return spared(model, again).touching("transfer", "wait").assuming(memory)


def prefetch(model: Model, value: int) -> Altered:
    """Unit i + k is gathered when unit i begins; the first where it was."""
    units = units_of(model)
    if isinstance(units, str):
        return units
    if units.synchronous:
        return _BLOCKING if value else model
    moved: dict[int, int] = {}  # collective: that whose wait it is issued behind
    for part in (GATHER, REGATHER):
        for run in runs(model, part):
            moved |= {number: run[max(place - value, 0)] for place, number in enumerate(run) if place}
    return with_points(model, _moved(model, moved)).touching("transfer", "wait")


def _moved(model: Model, behind: dict[int, int]) -> list[Placed]:
    """Points with some issues behind the waits of others; behind its own means just before it."""
    placed: list[Placed] = []
    for each in points_of(model):
        number = each.point.node
        if not each.point.waits and number in behind:
            continue
        if each.point.waits and behind.get(number) == number:
            placed.append(Placed(Point(number, waits=False), each.row))
        placed.append(each)
        if each.point.waits:
            later = [n for n, other in behind.items() if other == number != n]
            placed += [Placed(Point(n, waits=False), each.row) for n in later]
    return placed


def unit_merge(model: Model, value: int) -> Altered:
    """k units of forward as one; the outermost module's own parameters, which are never given up, stay alone."""
    units = units_of(model)
    if isinstance(units, str):
        return units
    again = {model.nodes[n].unit for n in parts(model, REGATHER)}
    alone = {0} if again and 0 not in again else set()
    group = {unit: unit if unit in alone else len(alone) + (unit - len(alone)) // value for unit in range(units.count)}
    new: dict[int, Node] = {}
    dropped: list[int] = []
    for part in (GATHER, REGATHER, SCATTER):
        for run in runs(model, part):
            for unit, numbers in groupby(run, key=lambda number: group[model.nodes[number].unit]):
                # Parameters are there before the first of them is used, gradients after the last is computed.
                members = list(numbers)[:: -1 if part == SCATTER else 1]
                one = united([model.nodes[number] for number in members])
                if isinstance(one, str):
                    return one
                new[members[0]] = replace(one, unit=unit)
                dropped += members[1:]
    if not dropped:
        return model
    count = 1 + max(group.values())
    merged = replace(spared(replaced(model, new), dropped), units=replace(units, count=count))
    return merged.touching("transfer", "wait").assuming("there is memory for as many units at once as are merged")


def reduce_dtype(model: Model, value: str) -> Altered:
    """Gradients in another data type (MixedPrecisionPolicy.reduce_dtype)."""
    units = units_of(model)
    if isinstance(units, str):
        return units
    return each_recast(model, parts(model, SCATTER), lambda node: _in_dtype(node, value), FREE_CASTS)


def _in_dtype(node: Node, dtype: str) -> Node | str:
    own = ITEM_BYTES.get(node.dtype)
    if own is None:
        return f"gradients of type {node.dtype} are not cast"
    new = recast(node, node.bytes * ITEM_BYTES[dtype] / own)
    return new if isinstance(new, str) else replace(new, dtype=dtype)


def each_recast(model: Model, numbers: Sequence[int], change: Callable[[Node], Any], *assumptions: str) -> Altered:
    """The model with each of these collectives changed, or the first reason why not; as it is where none changes."""
    new: dict[int, Node] = {}
    for number in numbers:
        node = change(model.nodes[number])
        if isinstance(node, str):
            return node
        new[number] = node
    if all(node is model.nodes[number] for number, node in new.items()):
        return model
    return replaced(model, new).touching("transfer").assuming(*assumptions)


def runs(model: Model, part: str) -> list[list[int]]:
    """Collectives of one part in the order of issue, split where a further forward or backward begins."""
    found: list[list[int]] = []
    rising = part == GATHER
    for number in parts(model, part):
        unit = model.nodes[number].unit
        before = model.nodes[found[-1][-1]].unit if found else -1
        if found and (unit > before if rising else unit < before):
            found[-1].append(number)
        else:
            found.append([number])
    return found
