"""How DDP sends one bucket of gradients: as it is, cast, or through a communication hook that compresses it.

From torch's sources (2.11 and 2.13 say the same), torch/distributed/algorithms/ddp_comm_hooks:

powerSGD_hook.py: of each gradient of shape n x m (what follows the first dimension is one) where 2 (n + m) r < n m,
    r <= rank, two factors of n r and m r elements; an all_reduce of what is not compressed, one of all first factors
    and one of all second, each when the one before has ended.
quantization_hooks.py (per tensor): an all_gather of a scale and a zero point, then of one byte an element; every rank
    gets p copies.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from commlens.analyzers.whatif.buckets import Parameter
from commlens.analyzers.whatif.coefficients import Line
from commlens.analyzers.whatif.edited import known_lines
from commlens.analyzers.whatif.gradients import Gradients
from commlens.analyzers.whatif.model import Model
from commlens.analyzers.whatif.nodes import ITEM_BYTES, USED_MAP, Node
from commlens.analyzers.whatif.textbook import Derived, line_of

_LEAST_RATE: Final = 2  # min_compression_rate
_SCALE_BYTES: Final = 8  # a scale and a zero point, float32 each
_FLAG_BYTES: Final = 4  # int32 that counts the ranks which used a parameter


def wire_bytes(gradients: Gradients, bucket: Sequence[int]) -> float:
    """Bytes of a bucket on the wire, where it is sent as it is or cast."""
    total = 0.0
    for place in bucket:
        parameter = gradients.parameters[place]
        own = ITEM_BYTES.get(parameter.dtype, 0)
        shrink = gradients.item_bytes / own if gradients.item_bytes and own > gradients.item_bytes else 1.0
        total += parameter.num_bytes * shrink
    return total


def bucket_node(model: Model, gradients: Gradients, bucket: Sequence[int]) -> Node | str:
    """The collectives of a bucket, as one node; or why its cost is not known."""
    old = [node for node in model.nodes if node.reduces]
    hook = gradients.hook.name if gradients.hook is not None else ""
    if gradients.hook is not None and hook == "powersgd":
        found = powersgd_sizes([gradients.parameters[place] for place in bucket], gradients.hook.rank or 1)
        return found if isinstance(found, str) else _resized(old[0], sum(found), sum(size > 0 for size in found))
    if hook == "quantize":
        elements = sum(_elements(gradients.parameters[place]) for place in bucket)
        return _gathered(model, old[0], elements)
    size = wire_bytes(gradients, bucket)
    if same := [node for node in old if node.bytes == size]:
        return same[0]
    return _resized(old[0], size, 1)


def powersgd_sizes(parameters: Sequence[Parameter], rank: int) -> tuple[float, float, float] | str:
    """Bytes of what is not compressed, of the first factors and of the second; why they are not known."""
    plain = first = second = 0.0
    for parameter in parameters:
        if not parameter.shape:
            return "PowerSGD's factors follow from the parameters' shapes, which were not recorded"
        n, m = parameter.shape[0], math.prod(parameter.shape[1:])
        r = min(n, m, rank)
        item = parameter.num_bytes / max(n * m, 1)
        if (n + m) * r * _LEAST_RATE < n * m:
            first, second = first + n * r * item, second + m * r * item
        else:
            plain += parameter.num_bytes
    return plain, first, second


def used_map_node(model: Model, gradients: Gradients) -> Node | str:
    """The all_reduce that tells which parameters some rank used: an int32 each."""
    recorded = [node for node in model.nodes if node.part == USED_MAP]
    if recorded:
        return recorded[0]
    template = next(node for node in model.nodes if node.reduces)
    size = float(_FLAG_BYTES * sum(parameter.trainable for parameter in gradients.parameters))
    new = _resized(template, size, 1)
    return new if isinstance(new, str) else replace(new, dtype="int32", reduces=False, part=USED_MAP)


def _elements(parameter: Parameter) -> float:
    return parameter.num_bytes / ITEM_BYTES.get(parameter.dtype, 4)


def _resized(template: Node, size: float, messages: int) -> Node | str:
    """A collective of gradients with other bytes, of which no transfer was measured."""
    unknown = known_lines(template)
    if isinstance(unknown, str):
        return unknown
    unmeasured = np.full_like(template.measured_ns, np.nan)
    return replace(template, bytes=size, measured_ns=unmeasured, messages=template.messages * messages)


def _gathered(model: Model, template: Node, elements: float) -> Node | str:
    found = [line_of(model.links[int(link)], "all_gather") for link in template.links]
    known = [each for each in found if isinstance(each, Derived)]
    if len(known) < len(found):
        return next(each for each in found if isinstance(each, str))
    ranks = max(int(np.bincount(template.member).max()), 1)
    lines: list[Line | str] = [each.line for each in known]
    unmeasured = np.full_like(template.measured_ns, np.nan)
    size = ranks * (elements + _SCALE_BYTES)
    return replace(
        template, op="all_gather", dtype="uint8", bytes=size, lines=tuple(lines), measured_ns=unmeasured, messages=2
    )


def gather_assumptions(model: Model) -> tuple[str, ...]:
    """What the cost of gathering gradients rests on."""
    links = {int(link) for node in model.nodes if node.reduces for link in node.links}
    found = [line_of(model.links[link], "all_gather") for link in sorted(links)]
    return tuple({each.assumption: None for each in found if isinstance(each, Derived) and each.assumption})
