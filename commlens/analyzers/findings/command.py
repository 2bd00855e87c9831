"""The command that started the job, as far as the recording tells."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Mapping
from typing import Any

from commlens.analyzers.rank_info import words as known


def launch_line(run: Mapping[str, Any], infos: Mapping[int, Mapping[str, Any]]) -> str:
    """ "torchrun --nproc-per-node 2 train.py --steps 10"; "torchrun ..." where the command was not recorded.

    Args:
        run: content of run.json.
        infos: rank.json of each rank.
    """
    told = run.get("command")
    words = [str(word) for word in told] if isinstance(told, list) else []
    if not words or words[0] in ("torchrun", "python"):
        return shlex.join(words) or "torchrun ..."
    environments = [known(info, "environment") for info in infos.values()]
    if not any("TORCHELASTIC_RUN_ID" in each for each in environments):
        return f"python {shlex.join(words)}"
    nodes = _nodes(infos.values())
    nproc = next((each["LOCAL_WORLD_SIZE"] for each in environments if "LOCAL_WORLD_SIZE" in each), None)
    return f"torchrun {nodes}--nproc-per-node {nproc or run.get('world_size')} {shlex.join(words)}"


def _nodes(infos: Collection[Mapping[str, Any]]) -> str:
    hosts = {info.get("boot_id") or info.get("host") for info in infos}
    return f"--nnodes {len(hosts)} " if len(hosts) > 1 else ""
