"""The job of `commlens demo`: two ranks, and a mistake that many jobs make.

Each parameter's gradient is averaged by an all_reduce of its own, after the
whole backward: many small messages, and nothing left to compute meanwhile.
"""

from __future__ import annotations

import torch
import torch.distributed as dist

STEPS, LAYERS, WIDTH, BATCH = 40, 12, 384, 256


def main() -> None:
    dist.init_process_group("gloo")
    torch.manual_seed(dist.get_rank())
    layers = [layer for _ in range(LAYERS) for layer in (torch.nn.Linear(WIDTH, WIDTH), torch.nn.ReLU())]
    model = torch.nn.Sequential(*layers)
    for parameter in model.parameters():
        dist.broadcast(parameter.data, src=0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for _ in range(STEPS):
        batch = torch.randn(BATCH, WIDTH)
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(model(batch), batch).backward()
        for parameter in model.parameters():
            assert parameter.grad is not None
            dist.all_reduce(parameter.grad)
            parameter.grad.div_(dist.get_world_size())
        optimizer.step()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
