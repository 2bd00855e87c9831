"""Finding pipeline-bubble: a pipeline with so few micro-batches that its stages mostly wait for each other."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

import numpy as np

from commlens.analyzers.findings.build import by_hand, severity
from commlens.analyzers.findings.context import Context
from commlens.analyzers.findings.placed import Placed
from commlens.analyzers.report import Evidence, Finding
from commlens.trace.change_kinds import NEEDS_PERSON

_LARGE = 0.25  # of the step in which a stage has nothing to do
_ENOUGH = 4  # micro-batches a stage: less than a fifth is bubble


def find_pipeline_bubble(context: Context, ranks: Sequence[Placed]) -> list[Finding]:
    """A chain of ranks that pass messages both ways, with few micro-batches a step."""
    chain = _chain(context) if ranks else ()
    if len(chain) < 2:
        return []
    stages = len(chain)
    micro = _micro_batches([ranks[position] for position in chain])
    waited = fmean(_waited_ms(context, position) for position in chain)
    bubble = (stages - 1) / (micro + stages - 1) if micro else 0.0
    saved = min(waited, bubble * context.step_ms)
    if bubble < _LARGE or not context.matters(saved):
        return []
    wanted = _ENOUGH * stages
    after = (stages - 1) / (wanted + stages - 1)
    batches = "micro-batch" if micro == 1 else "micro-batches"
    return [
        Finding(
            id="pipeline-bubble",
            title=f"{micro} {batches} a step are too few for a pipeline of {stages} stages: they wait for each other",
            layer="strategy",
            severity=severity(context, saved),
            confidence="medium",
            ranks=context.numbers(chain),
            group=None,
            steps=(),
            evidence=(
                Evidence("stages", float(stages), ""),
                Evidence("micro-batches per step", float(micro), ""),
                Evidence(
                    "bubble of even stages, (stages - 1) / (micro-batches + stages - 1)", round(100 * bubble, 1), "%"
                ),
                Evidence(f"the same with {wanted} micro-batches", round(100 * after, 1), "%"),
                Evidence("stages wait for messages per step, mean over ranks", round(waited, 3), "ms"),
            ),
            ceiling_ms=round(saved, 3),
            actions=(
                by_hand(
                    f"cut the batch into more micro-batches ({wanted}), or interleave the stages",
                    change=f"n_microbatches={wanted} (torch.distributed.pipelining), or ScheduleInterleaved1F1B",
                    risk=NEEDS_PERSON,
                ),
            ),
            could_be_wrong_if=(
                "the stages are uneven: then the slowest is waited for whatever the micro-batches",
                "micro-batches of fewer rows would not keep the device busy",
                *context.caveats,
            ),
        )
    ]


def _chain(context: Context) -> tuple[int, ...]:
    """Positions of ranks that form a line of which neighbours send each other messages; () where there is none."""
    ways = {m.communicator.members for m in context.joined.matched if m.communicator.point_to_point and m.rows.size}
    numbers = [facts.rank for facts in context.ranks]
    both = {ends for ends in ways if ends[::-1] in ways and set(ends) <= set(numbers)}
    if both != ways:  # a ring, an exchange, a star, or a rank that was not recorded
        return ()
    ends = [rank for rank in numbers if sum(first == rank for first, _ in both) == 1]
    if len(ends) != 2 or len(both) != 2 * (len({rank for pair in both for rank in pair}) - 1):
        return ()
    line = [min(ends)]
    while following := [b for a, b in both if a == line[-1] and b not in line]:
        line.append(following[0])
    return tuple(numbers.index(rank) for rank in line) if line[-1] == max(ends) else ()


def _micro_batches(ranks: Sequence[Placed]) -> int:
    """Backwards a step, where all stages agree and pass on as many messages or a multiple; 0 where they do not."""
    counts = {round(each.backwards(), 3) for each in ranks}
    micro = counts.pop()
    sent = [each.per_step(each.op("send")) for each in ranks]
    if counts or micro < 1 or micro != round(micro) or any(not count or count % micro > 0.01 for count in sent):
        return 0
    return round(micro)


def _waited_ms(context: Context, position: int) -> float:
    """A rank stands still for messages that are not sent yet, ms a step."""
    facts, own = context.ranks[position], context.joined.exposed[position]
    received = facts.columns.words["op"].equals("recv")
    return float(np.sum(own.row_wait[received])) / max(facts.steps.index.size, 1) / 1e6
