"""A rank of the jobs that `gpu_check.py` runs; any launcher's, on NCCL or Gloo.

    torchrun --nproc-per-node 2 bench/gpu_job.py ddp --device cuda --steps 20 --out FOLDER

Several ranks may share one GPU (NCCL 2.30 or newer, NCCL_MULTI_RANK_GPU_ENABLE=1).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import statistics
import time
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.nn.functional  # before the first group: it binds the default group on import

WIDTH, LAYERS, BATCH = 1024, 8, 128


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", choices=WORK)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    device = torch.device("cpu")
    if options.device == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if options.device == "cuda" else "gloo")
    torch.manual_seed(0)
    answer = WORK[options.work](device, options.steps, options.out)
    (options.out / f"{options.work}-{dist.get_rank()}.json").write_text(json.dumps(answer))
    dist.destroy_process_group()


def settle(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def network() -> torch.nn.Sequential:
    return torch.nn.Sequential(
        *(part for _ in range(LAYERS) for part in (torch.nn.Linear(WIDTH, WIDTH), torch.nn.ReLU()))
    )


def ddp(device: torch.device, steps: int, out: Path) -> dict:
    model = torch.nn.parallel.DistributedDataParallel(network().to(device), bucket_cap_mb=10)
    return train(model, device, steps)


def fsdp2(device: torch.device, steps: int, out: Path) -> dict:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    model = network().to(device)
    for layer in list(model)[::2]:
        fully_shard(layer, mesh=mesh)
    return train(fully_shard(model, mesh=mesh), device, steps)


def train(model: torch.nn.Module, device: torch.device, steps: int) -> dict:
    """Median step in ms and a digest of losses and parameters: recording must not change it."""
    optimizer = torch.optim.AdamW(model.parameters())
    batch = torch.randn(BATCH, WIDTH, generator=torch.Generator().manual_seed(dist.get_rank())).to(device)
    times, losses = [], []
    for _ in range(steps):
        settle(device)
        started = time.perf_counter()
        optimizer.zero_grad()
        loss = model(batch).square().mean()
        loss.backward()
        optimizer.step()
        settle(device)
        times.append(time.perf_counter() - started)
        losses.append(loss.item())
    digest = hashlib.sha256(json.dumps(losses).encode())
    for parameter in model.parameters():
        local = parameter.to_local() if hasattr(parameter, "to_local") else parameter
        digest.update(local.detach().cpu().numpy().tobytes())
    return {"step_ms": statistics.median(times) * 1e3, "digest": digest.hexdigest()}


def ops(device: torch.device, steps: int, out: Path) -> dict:
    """Each kind of call, `steps` times, in steps of a dummy optimizer; says how many of each there were."""
    size, rank = dist.get_world_size(), dist.get_rank()
    one = torch.ones(2**18, device=device)
    many = torch.ones(2**18 * size, device=device)
    parts = list(torch.ones(2**18 * size, device=device).chunk(size))
    calls = {
        "all_reduce": lambda: dist.all_reduce(one),
        "broadcast": lambda: dist.broadcast(one, 0),
        "reduce": lambda: dist.reduce(one, 0),
        "all_gather": lambda: dist.all_gather(parts, one),
        "all_gather_into_tensor": lambda: dist.all_gather_into_tensor(many, one),
        "reduce_scatter_tensor": lambda: dist.reduce_scatter_tensor(one, many),
        "all_to_all_single": lambda: dist.all_to_all_single(many, many.clone()),
        "barrier": lambda: dist.barrier(),
        "send_recv": lambda: ring(one, rank, size),
    }
    weight = torch.ones(4, device=device, requires_grad=True)
    optimizer = torch.optim.SGD([weight], lr=0.0)
    for _ in range(steps):
        for call in calls.values():
            call()
        weight.sum().backward()
        optimizer.step()
    settle(device)
    return {"calls": dict.fromkeys(calls, steps)}


def ring(tensor: torch.Tensor, rank: int, size: int) -> None:
    if size == 1:
        return
    other = torch.empty_like(tensor)
    pair = [
        dist.P2POp(dist.isend, tensor, (rank + 1) % size),
        dist.P2POp(dist.irecv, other, (rank - 1) % size),
    ]
    for work in dist.batch_isend_irecv(pair):
        work.wait()


def graph(device: torch.device, steps: int, out: Path) -> dict:
    """An all_reduce captured in a CUDA graph and replayed in every step."""
    tensor = torch.ones(2**18, device=device)
    weight = torch.ones(4, device=device, requires_grad=True)
    optimizer = torch.optim.SGD([weight], lr=0.0)
    dist.all_reduce(tensor)  # the communicator must be there before the capture
    settle(device)
    captured = torch.cuda.CUDAGraph()
    with torch.cuda.graph(captured):
        dist.all_reduce(tensor)
    for _ in range(steps):
        captured.replay()
        weight.sum().backward()
        optimizer.step()
    settle(device)
    return {"replays": steps}


def flight(device: torch.device, steps: int, out: Path) -> dict:
    """A DDP job that leaves its Flight Recorder dump."""
    answer = ddp(device, steps, out)
    dump = getattr(torch._C._distributed_c10d, "_dump_nccl_trace", torch._C._distributed_c10d._dump_fr_trace)
    (out / f"nccl_trace_rank_{dist.get_rank()}").write_bytes(dump(includeStackTraces=False))
    return answer


WORK = {"ddp": ddp, "fsdp2": fsdp2, "ops": ops, "graph": graph, "flight": flight}

if __name__ == "__main__":
    main()
