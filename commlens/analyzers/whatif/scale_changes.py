"""Changes of how many ranks a collective spans: more of them, in a hierarchy, or sharded over fewer.

Shapes from `textbook`, constants from the run; compute stays as it was (weak scaling).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from commlens.analyzers.whatif.edited import factored, parts, recast
from commlens.analyzers.whatif.fsdp_changes import each_recast, units_of
from commlens.analyzers.whatif.model import Altered, Model
from commlens.analyzers.whatif.nodes import GATHER, REGATHER, SCATTER, Link, Node
from commlens.analyzers.whatif.textbook import ESTIMATE, Derived, Factors, added, line_of, multiplied, of_ranks

_WEAK = "each rank computes as much as before, and new ranks and links are like those recorded"
_OWN_CARDS = "groups between hosts do not slow each other down: each rank of a host has a network card of its own"
_ALL_WAIT = "every all_gather is taken to wait for all ranks, as before"


def ranks_of(model: Model, link: Link) -> int:
    """How many ranks a communicator has."""
    return len(link.members) or int(model.step_ns.shape[0])


def world_size(model: Model, value: int) -> Altered:
    """As many ranks, weak scaling: a ring's latency grows as p - 1, its bytes as (p - 1) / p."""
    now = int(model.step_ns.shape[0])
    if value == now:
        return model
    if any(ranks_of(model, model.links[int(link)]) != now for node in model.nodes for link in node.links):
        return "groups of a part of the ranks are used: how they would grow is not known"

    def grown(node: Node) -> Node | str:
        factors = of_ranks(node.op, now, value)
        if isinstance(factors, str):
            return factors
        # What each rank gives to an all_gather stays as large, but for shards: those get smaller.
        more = value / now if node.op == "all_gather" and not node.part else 1.0
        return factored(node, factors.latency, factors.per_byte * more)

    changed = each_recast(model, range(len(model.nodes)), grown, ESTIMATE, _WEAK)
    return changed if isinstance(changed, str) else replace(changed.touching("wait"), widen=2.0)


def hierarchical(model: Model, value: int) -> Altered:
    """reduce_scatter within hosts of g ranks, all_reduce of 1/g between them, all_gather within.

    2 (g-1) alpha_i + 2 (m-1) alpha_e + 2 (g-1)/g n beta_i + 2 (m-1)/m (n/g) beta_e, of which the communicators of
    one host (i) and between hosts (e) were measured.
    """
    flat = {n for n, node in enumerate(model.nodes) if node.op == "all_reduce" and _spans(model, node, value)}
    if not flat:
        return f"no all_reduce spans several hosts of {value} ranks each"
    world = set(model.links[int(model.nodes[min(flat)].links[0])].members)
    inner = _measured(model, world, (value,), ("reduce_scatter", "all_gather"))
    outer = _measured(model, world, (1,) * (len(world) // value), ("all_reduce",))
    if isinstance(inner, str) or isinstance(outer, str):
        missing = "within a host" if isinstance(inner, str) else "of one rank of each host"
        return f"no communicator {missing} was measured, whose costs it takes"
    line = added(*(each.line for each in inner), multiplied(outer[0].line, Factors(1.0, 1 / value)))
    third = multiplied(line, Factors(1 / 3, 1.0))  # its latency is spread over the three messages

    def layered(node: Node) -> Node | str:
        return recast(node, node.bytes, [third], messages=3)

    rests = [each.assumption for each in (*inner, *outer) if each.assumption]
    changed = each_recast(model, sorted(flat), layered, ESTIMATE, _OWN_CARDS, *rests)
    return changed if isinstance(changed, str) else replace(changed, widen=2.0)


def _spans(model: Model, node: Node, per_host: int) -> bool:
    hosts = model.links[int(node.links[0])].hosts
    return len(node.links) == 1 and len(hosts) > 1 and set(hosts) == {per_host}


def _measured(model: Model, world: set[int], hosts: tuple[int, ...], ops: Sequence[str]) -> list[Derived] | str:
    """Lines of the first communicator of these ranks that is spread over hosts like that."""
    reason = "there is none"
    for link in model.links:
        if link.hosts == hosts and set(link.members) < world:
            found = [line_of(link, op) for op in ops]
            known = [each for each in found if isinstance(each, Derived)]
            if len(known) == len(found):
                return known
            reason = next(each for each in found if isinstance(each, str))
    return reason


def shard_size(model: Model, value: int) -> Altered:
    """HSDP: shards among g ranks, and an all_reduce of n/g between the p/g copies behind each reduce_scatter."""
    units = units_of(model)
    if isinstance(units, str):
        return units
    link = model.links[units.link]
    now = ranks_of(model, link)
    if value == now:
        return model
    if value > now or now % value:
        return f"{now} ranks cannot be split into groups of {value}"
    within = _within(model, link, now, value)
    copies, factors = line_of(link, "all_reduce"), of_ranks("all_reduce", now, now // value)
    if isinstance(within, str) or isinstance(copies, str) or isinstance(factors, str):
        return next(each for each in (within, copies, factors) if isinstance(each, str))
    across = multiplied(copies.line, Factors(factors.latency, factors.per_byte / value))

    def split(node: Node) -> Node | str:
        own = within[node.op].line
        return recast(node, node.bytes, [added(own, across) if node.part == SCATTER else own])

    memory = f"there is memory for {now // value} times the parameters, gradients and optimizer states"
    halves = [each.assumption for each in (copies, *within.values()) if each.assumption]
    changed = each_recast(model, parts(model, GATHER, REGATHER, SCATTER), split, ESTIMATE, memory, _ALL_WAIT, *halves)
    return changed if isinstance(changed, str) else replace(changed, widen=2.0)


def _within(model: Model, link: Link, now: int, group: int) -> dict[str, Derived] | str:
    """What gathering and scattering cost in groups of so many ranks: measured, where those are the ranks of a host."""
    ops = ("all_gather", "reduce_scatter")
    if len(link.hosts) < 2:
        found = [line_of(link, op) for op in ops]
        factors = of_ranks(ops[0], now, group)
        if isinstance(factors, str):
            return factors
        known = [
            Derived(multiplied(each.line, factors), each.assumption) for each in found if isinstance(each, Derived)
        ]
        unknown = [each for each in found if isinstance(each, str)]
        return unknown[0] if unknown else dict(zip(ops, known, strict=True))
    measured = _measured(model, set(link.members), (group,), ops) if set(link.hosts) == {group} else "not of a host"
    if isinstance(measured, str):
        return f"what gathering among {group} ranks of one host costs was not measured"
    return dict(zip(ops, measured, strict=True))
