"""The questions worth asking of every run."""

from __future__ import annotations

from commlens.analyzers.whatif.asked import Simulator
from commlens.analyzers.whatif.edited import parts
from commlens.analyzers.whatif.model import Model
from commlens.analyzers.whatif.nodes import BUFFERS, REGATHER, SCATTER
from commlens.analyzers.whatif.optimum import best_cap, best_caps
from commlens.trace.changes import Change, parse

_ALWAYS = ("overlap=perfect", "link.bandwidth=x2", "link.latency=x0.5", "imbalance.remove=1")
_HALVED = "ddp.comm_hook=bf16"
_LAST, _NO_SEARCH, _NO_BUFFERS = "ddp.last_bucket_cap=1", "ddp.find_unused_parameters=0", "ddp.broadcast_buffers=0"
_KEPT, _MERGED, _SCATTERED_HALF = "fsdp.reshard_after_forward=0", "fsdp.unit_merge=2", "fsdp.reduce_dtype=bf16"


def usual_sets(simulator: Simulator) -> list[list[Change]]:
    """Changes that tell where the time is; of DDP's and FSDP's only those that apply."""
    model = simulator.baseline.model if simulator.baseline is not None else None
    names = [*_ALWAYS, *(_applying(model) if model is not None else [])]
    return [*([each] for each in best_buckets(simulator)), *([parse(name)] for name in names)]


def _applying(model: Model) -> list[str]:
    names = ["straggler.remove=1"] if model.late else []
    if model.gradients is not None and model.gradients.refusal is None:
        names += [_HALVED, _LAST]
        names += [_NO_SEARCH] if model.gradients.settings.maps_used else []
    names += [_NO_BUFFERS] if parts(model, BUFFERS) else []
    if model.units is not None and model.units.refusal is None:
        wide = any(model.nodes[number].dtype == "float32" for number in parts(model, SCATTER))
        names += [_KEPT] if parts(model, REGATHER) else []
        names += [*([_MERGED] if model.units.count > 1 else []), *([_SCATTERED_HALF] if wide else [])]
    hosts = {link.hosts for link in model.links if len(link.hosts) > 1 and len(set(link.hosts)) == 1 < link.hosts[0]}
    return names + [f"allreduce.hierarchical={each[0]}" for each in sorted(hosts)[:1]]


def best_buckets(simulator: Simulator) -> list[Change]:
    """The best cap, and the best list of caps where that is better; nothing where it cannot be told."""
    if simulator.baseline is None or simulator.refusal is not None:
        return []
    single = best_cap(simulator.baseline)
    found = [single, best_caps(simulator.baseline, single)]
    return list(dict.fromkeys(each.change for each in found if not isinstance(each, str)))
