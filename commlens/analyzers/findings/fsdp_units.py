"""Finding fsdp-unit-size: FSDP2 gathers the whole model before anything is computed."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from commlens.analyzers.findings.build import by_hand, severity
from commlens.analyzers.findings.context import Context
from commlens.analyzers.findings.model import Model, alike
from commlens.analyzers.findings.placed import Placed, Which, own_ms, per_step
from commlens.analyzers.findings.spent import exposed_ms
from commlens.analyzers.held import each, keep
from commlens.analyzers.report import Evidence, Finding
from commlens.trace.change_kinds import EXACT

_WHOLE = 0.9  # of the model's elements in one reduce_scatter
_FEWEST = 4  # parameters; of fewer there may be nothing to make units of


def find_one_unit(context: Context, ranks: Sequence[Placed]) -> list[Finding]:
    """A model of many parameters whose gradients are scattered in one piece."""
    model = alike(context, "FSDP2")
    if model is None or not ranks or len(model.sizes) < _FEWEST or max(model.sizes) > sum(model.sizes) / 2:
        return []
    if not all(each(partial(_is_whole, model=model), ranks)):
        return []
    rows = keep(partial(_moving, model=model), ranks)
    exposed = exposed_ms(context, rows)
    computing = own_ms(ranks, "forward", "backward")
    saved = min(exposed, computing)
    if not context.matters(saved):
        return []
    over_gloo = "gloo" in str(context.run.get("backend"))  # where FSDP2 stands still for each gather: units save memory
    gathered = per_step(ranks, keep(_gathering, ranks, rows))
    return [
        Finding(
            id="fsdp-unit-size",
            title="FSDP shards the whole model as one unit: it is gathered before anything is computed",
            layer="strategy",
            severity=severity(context, saved),
            confidence="low" if over_gloo else "medium",
            ranks=(),
            group=None,
            steps=(),
            evidence=(
                Evidence("parameters in the unit", float(len(model.sizes)), ""),
                Evidence("bytes of the unit", float(sum(model.sizes)), "B"),
                Evidence("all_gathers of it per step", round(gathered, 1), ""),
                Evidence("exposed transfer of gathers and scatters per step, mean over ranks", round(exposed, 3), "ms"),
                Evidence("computing in forward and backward per step, mean over ranks", round(computing, 3), "ms"),
            ),
            ceiling_ms=round(saved, 3),
            actions=(
                by_hand(
                    "shard each layer as a unit of its own: memory falls, but over Gloo, as here, no time is gained"
                    if over_gloo
                    else "shard each layer as a unit of its own: one is gathered while another computes, and memory"
                    " falls",
                    change="for layer in model.layers: fully_shard(layer); then fully_shard(model)",
                    risk=EXACT,
                ),
            ),
            could_be_wrong_if=(
                *(("over Gloo FSDP2 stands still for every collective: there units save memory only",) * over_gloo),
                "the layers are so small that a message for each would pay mostly latency",
                *context.caveats,
            ),
        )
    ]


def _gathering(rank: Placed, rows: Which) -> Which:
    return rows & rank.op("all_gather")


def _is_whole(rank: Placed, model: Model) -> bool:
    """Whether each backward scatters the gradients of all parameters in one collective."""
    scattered = rank.op("reduce_scatter") & rank.issued_in("backward")
    backwards = rank.backwards()
    if not backwards or not 0 < rank.per_step(scattered) <= backwards:
        return False
    return rank.per_step(rank.elements * scattered) >= _WHOLE * sum(model.elements) * rank.per_step(scattered)


def _moving(rank: Placed, model: Model) -> Which:
    """The unit's gathers and scatters, shape (rows,)."""
    return rank.op("all_gather", "reduce_scatter") & (rank.issued_in("forward") | rank.issued_in("backward"))
