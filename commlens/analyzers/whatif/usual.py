"""The questions worth asking of every run."""

from __future__ import annotations

from commlens.analyzers.whatif.asked import Simulator
from commlens.analyzers.whatif.optimum import best_cap, best_caps
from commlens.trace.changes import Change, parse

_ALWAYS = ("overlap=perfect", "link.bandwidth=x2", "link.latency=x0.5", "imbalance.remove=1")
_HALVED, _HALVED_OVER_GLOO = "ddp.comm_hook=bf16", "ddp.comm_hook=fp16"  # torch's bf16 hook refuses Gloo
_LAST = "ddp.last_bucket_cap=1"


def usual_sets(simulator: Simulator) -> list[list[Change]]:
    """Changes that tell where the time is; of DDP's only those that apply."""
    model = simulator.baseline.model if simulator.baseline is not None else None
    names = [*_ALWAYS, *(["straggler.remove=1"] if model is not None and model.late else [])]
    if model is not None and model.gradients is not None and model.gradients.refusal is None:
        gloo = any(link.workers > 1 for link in model.links)
        names += [_HALVED_OVER_GLOO if gloo else _HALVED, _LAST]
    return [*([each] for each in best_buckets(simulator)), *([parse(name)] for name in names)]


def best_buckets(simulator: Simulator) -> list[Change]:
    """The best cap, and the best list of caps where that is better; nothing where it cannot be told."""
    if simulator.baseline is None or simulator.refusal is not None:
        return []
    single = best_cap(simulator.baseline)
    found = [single, best_caps(simulator.baseline, single)]
    return list(dict.fromkeys(each.change for each in found if not isinstance(each, str)))
