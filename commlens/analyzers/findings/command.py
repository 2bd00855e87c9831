"""The command that started the job, as far as the recording tells."""

from __future__ import annotations

import shlex
from typing import Any

from commlens.analyzers.findings.context import Context


def launch_line(context: Context) -> str:
    """ "torchrun --nproc-per-node 2 train.py --steps 10"; "torchrun ..." where the command was not recorded."""
    words = [str(word) for word in context.run.get("command") or ()]
    if not words or words[0] in ("torchrun", "python"):
        return shlex.join(words) or "torchrun ..."
    environments: list[dict[str, Any]] = [info.get("environment") or {} for info in context.infos.values()]
    if not any("TORCHELASTIC_RUN_ID" in each for each in environments):
        return f"python {shlex.join(words)}"
    hosts = {facts.who.machine for facts in context.ranks}
    world = context.run.get("world_size")
    nproc = next((str(each["LOCAL_WORLD_SIZE"]) for each in environments if "LOCAL_WORLD_SIZE" in each), str(world))
    nodes = f"--nnodes {len(hosts)} " if len(hosts) > 1 else ""
    return f"torchrun {nodes}--nproc-per-node {nproc} {shlex.join(words)}"
