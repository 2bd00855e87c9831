"""What the samples share: their options, the backend and device of a rank, and the log of the steps."""

import argparse
import gc
import hashlib
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterable

import torch
import torch.distributed as dist

# Torch imports it with the first optimizer. Imported after init_process_group, its functions keep that group as a
# default argument, and destroy_process_group does not end it.
import torch.distributed.nn.functional
from torch.distributed.tensor import DTensor


def parser(doc: str, steps: int) -> argparse.ArgumentParser:
    """The options that every sample has."""
    p = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--steps", type=int, default=steps, help="training steps (default: %(default)s)")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--digest", action="store_true", help="print a hash of parameters and losses at the end")
    return p


def setup() -> torch.device:
    """Join the job: NCCL where every rank of this host has a GPU of its own, otherwise Gloo on the CPU."""
    if torch.cuda.device_count() >= int(os.environ.get("LOCAL_WORLD_SIZE", "1")):
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
        dist.init_process_group("nccl", device_id=device)
    else:
        device = torch.device("cpu")
        dist.init_process_group("gloo")
    return device


def run(train: Callable[[argparse.Namespace, torch.device], None], args: argparse.Namespace) -> None:
    """Join the job, train, and leave the job after the model is gone.

    Gloo's threads drop the tensors of the last messages at their leisure. A group that is alive when the process ends
    may abort it so, and one that a model's end destroys may hang it (torch 2.13, busy cores).
    """
    train(args, setup())
    gc.collect()
    dist.destroy_process_group()


def say(line: str) -> None:
    """Print a line in a single write, so that the lines of several ranks do not mix."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


class StepLog:
    """Keeps every step's loss and time; rank 0 prints about ten of the steps."""

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.losses: list[torch.Tensor] = []
        self.times = [time.perf_counter()]

    def due(self, step: int) -> bool:
        return step % max(1, self.steps // 10) == 0 or step == self.steps - 1

    def step(self, step: int, loss: torch.Tensor) -> None:
        self.losses.append(loss.detach())
        if self.due(step) and dist.get_rank() == 0:
            say(f"step {step} loss {loss.item():.6f}")
        self.times.append(time.perf_counter())

    def finish(self, params: Iterable[torch.Tensor], digest: bool) -> None:
        rank = dist.get_rank()
        if rank == 0 and self.losses:
            each = [b - a for a, b in zip(self.times, self.times[1:], strict=False)]
            say(f"median step {statistics.median(each) * 1e3:.1f} ms")
        if digest:
            losses = [loss.item() for loss in self.losses]
            sha = hashlib.sha256(" ".join(loss.hex() for loss in losses).encode())
            for p in params:
                local = p.to_local() if isinstance(p, DTensor) else p
                sha.update(local.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
            last = losses[-1].hex() if losses else "none"
            say(f"digest rank={rank} loss={last} params={sha.hexdigest()}")
