"""The job of `commlens doctor`: one rank, every kind of collective, one training step.

Started with COMMLENS set, it shows whether recording attaches by itself here and
what the hooks see of this torch. One rank talks to nobody.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import HashStore
from torch.nn.parallel import DistributedDataParallel


def main() -> None:
    dist.init_process_group("gloo", store=HashStore(), rank=0, world_size=1)
    data, copy = torch.ones(8), torch.empty(8)
    dist.all_reduce(data)
    dist.all_reduce(data, async_op=True).wait()
    dist.broadcast(data, 0)
    dist.reduce(data, 0)
    dist.all_gather_into_tensor(copy, data)
    dist.reduce_scatter_tensor(copy, data)
    dist.all_to_all_single(copy, data)
    dist.gather(data, [copy])
    dist.scatter(copy, [data])
    dist.barrier()
    model = DistributedDataParallel(torch.nn.Linear(8, 8))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(3):
        model(data).sum().backward()
        optimizer.step()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
