"""Runs a sample on the lab's synthetic link, open from the moment the process group is there.

torchrun ... on_link.py samples/ddp.py --steps 12
"""

from __future__ import annotations

import os
import runpy
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from lab import link
from lab.board import PID, folder
from lab.quiet import quiet


def main() -> None:
    link.install()
    torch.set_num_threads(1)
    join = dist.init_process_group

    def joined(*args: Any, **kwargs: Any) -> None:
        join(*args, **kwargs)
        (folder() / f"{PID}{dist.get_rank()}").write_text(str(os.getpid()))
        quiet()
        link.begin()

    dist.init_process_group = joined
    sys.argv = sys.argv[1:]
    sys.path.insert(0, str(Path(sys.argv[0]).parent))
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()
