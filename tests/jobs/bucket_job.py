"""DDP in many configurations on one rank: what it was given, when gradients were ready, what it sent.

Prints one JSON object: {name: {parameters, ready, settings, first, sent, logged, logged_bytes}}, all of them
in the words of commlens.analyzers.whatif.buckets.
"""

from __future__ import annotations

import inspect
import itertools
import json
import os
import warnings
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

STEPS = 5  # DDP rebuilds in the second forward, with a static graph in the third, and logs it in the next
KIB = 1 / 1024


class Chain(nn.Module):
    """Layers called in a given order, which need not be that of registration."""

    def __init__(self, layers: list[nn.Module], order: list[int] | None = None) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.order = order or list(range(len(layers)))

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        for place in self.order:
            layer = self.layers[place]
            values = layer(values.to(next(layer.parameters()).dtype))
        return torch.sum(values.float())


class Branches(nn.Module):
    """Branches that meet at the end: their gradients become ready in turns."""

    def __init__(self, width: int, branches: int) -> None:
        super().__init__()
        self.first = nn.ModuleList(nn.Linear(width, width) for _ in range(branches))
        self.second = nn.ModuleList(nn.Linear(width, width, bias=False) for _ in range(branches))

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return torch.stack([b(a(values)) for a, b in zip(self.first, self.second, strict=True)]).sum()


class Words(nn.Module):
    """An embedding with sparse gradients before dense layers."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = nn.Linear(16, 16)
        self.words = nn.Embedding(64, 16, sparse=True)
        self.more = nn.Embedding(8, 16, sparse=True)
        self.last = nn.Linear(16, 8)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        place = torch.arange(4)
        return torch.sum(self.last(self.dense(self.words(place) + self.more(place)))) + 0 * values.sum()


def chain(*widths: int, order: list[int] | None = None, dtypes: tuple[torch.dtype, ...] = (torch.float32,)) -> Chain:
    kinds = itertools.cycle(dtypes)
    return Chain([nn.Linear(a, b).to(next(kinds)) for a, b in itertools.pairwise(widths)], order)


def frozen() -> Chain:
    model = chain(*[64] * 7)
    for place in (0, 3):
        model.layers[place].requires_grad_(False)
    model.layers[5].bias.requires_grad_(False)
    return model


def tied() -> Chain:
    model = chain(*[64] * 7)
    model.layers[5].weight = model.layers[0].weight
    model.layers[2].bias = model.layers[1].bias
    return model


FLOATS = (torch.float32, torch.bfloat16, torch.float64, torch.float16)
MODELS = {
    "even": lambda: chain(*[64] * 9),
    "uneven": lambda: chain(64, 200, 8, 300, 300, 4, 128, 64),
    "shuffled": lambda: chain(*[64] * 9, order=[3, 0, 7, 1, 6, 2, 5, 4]),
    "branches": lambda: Branches(64, 5),
    "two dtypes": lambda: chain(*[64] * 9, dtypes=FLOATS[:2]),
    "four dtypes": lambda: chain(*[64] * 10, dtypes=FLOATS),
    "frozen": frozen,
    "tied": tied,
    "sparse": Words,
    "unused": lambda: chain(*[64] * 9, order=[0, 1, 4, 5, 7]),
    "large": lambda: chain(*[1024] * 10),
}
SOME = {"bucket_cap_mb": 20 * KIB}
CONFIGURATIONS: list[tuple[str, dict[str, Any]]] = [
    *itertools.product(("even", "uneven", "shuffled", "branches"), ({}, SOME, {"bucket_cap_mb": 64 * KIB})),
    *itertools.product(("two dtypes", "four dtypes"), ({}, SOME, {"bucket_cap_mb": 9 * KIB}, {"last": True})),
    *itertools.product(("frozen", "tied", "sparse"), ({}, SOME, {**SOME, "find_unused_parameters": True})),
    *itertools.product(("even", "four dtypes"), ({**SOME, "last": True}, {**SOME, "static_graph": True})),
    *itertools.product(("shuffled", "four dtypes"), ({"find_unused_parameters": True, **SOME},)),
    ("even", {"bucket_cap_mb": 1 * KIB}),  # less than one tensor
    ("even", {"bucket_cap_mb": 100_000}),
    ("even", {"bucket_cap_mb": 0}),
    ("sparse", {"bucket_cap_mb": 0}),
    ("even", {"bucket_cap_mb_list": [1 * KIB, 40 * KIB, 20 * KIB]}),
    ("shuffled", {"bucket_cap_mb_list": [1 * KIB, 40 * KIB], "last": True}),
    ("four dtypes", {"bucket_cap_mb_list": [1 * KIB, 20 * KIB, 5 * KIB]}),
    ("even", {"bucket_cap_mb_list": [1 * KIB, 40 * KIB, 20 * KIB], "find_unused_parameters": True}),
    ("even", {"bucket_cap_mb_list": [1 * KIB, 40 * KIB], "bucket_cap_mb": 20 * KIB}),
    ("unused", {"find_unused_parameters": True, **SOME}),
    ("unused", {"find_unused_parameters": True, "bucket_cap_mb_list": [1 * KIB, 40 * KIB]}),
    ("unused", {"static_graph": True, **SOME}),
    ("unused", {"static_graph": True, "find_unused_parameters": True, **SOME, "last": True}),
    ("tied", {"static_graph": True, **SOME}),
    ("large", {}),
    ("large", {"bucket_cap_mb": 25}),
    ("large", {"find_unused_parameters": True}),
    ("large", {"last": True}),
    ("large", {"last": True, "bucket_cap_mb": 10}),
]


def is_legal(keywords: dict[str, Any]) -> bool:
    """Whether this torch takes these arguments: a cap of 0 is refused before 2.13."""
    known = inspect.signature(DistributedDataParallel.__init__).parameters
    named = all(name in known for name in keywords if name != "last")
    return named and (keywords.get("bucket_cap_mb") != 0 or torch.__version__ >= "2.13")


def run(model: nn.Module, last: bool = False, **keywords: Any) -> dict[str, Any]:
    os.environ["DDP_SET_LAST_BUCKET_CAP"] = "1" if last else "0"
    place = {id(parameter): number for number, parameter in enumerate(model.parameters())}
    ready: list[list[int]] = []
    sent: list[list[list[int]]] = []

    def send(_, bucket):  # type: ignore[no-untyped-def]  # DDP reads the annotations, and knows no strings
        sent[-1].append([place[id(parameter)] for parameter in bucket.parameters()])
        done: Any = torch.futures.Future()
        done.set_result(bucket.buffer())
        return done

    wrapper = DistributedDataParallel(model, **keywords)
    wrapper.register_comm_hook(None, send)
    for parameter in filter(lambda parameter: parameter.requires_grad, model.parameters()):
        parameter.register_post_accumulate_grad_hook(lambda it: ready[-1].append(place[id(it)]))
    for _ in range(STEPS):
        ready.append([])
        sent.append([])
        wrapper(torch.ones(2, next(model.parameters()).shape[-1])).backward()
    assert all(order == ready[0] for order in ready)
    logged = wrapper._get_ddp_logging_data()
    sparse = {id(part.weight) for part in model.modules() if isinstance(part, nn.Embedding) and part.sparse}
    return {
        "parameters": [
            {
                "num_bytes": parameter.numel() * parameter.element_size(),
                "dtype": str(parameter.dtype).removeprefix("torch."),
                "device": str(parameter.device),
                "trainable": parameter.requires_grad,
                "sparse": id(parameter) in sparse,
            }
            for parameter in model.parameters()
        ],
        "ready": ready[0],
        "settings": {**keywords, "last_bucket_cap": last},
        "first": sent[0],
        "sent": sent[-1],
        "logged": logged.get("rebuilt_per_bucket_param_indices", ""),
        "logged_bytes": logged.get("rebuilt_bucket_sizes") or logged["bucket_sizes"],
    }


def main() -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    found = {}
    for kind, keywords in CONFIGURATIONS:
        if is_legal(keywords):
            torch.manual_seed(0)
            name = ", ".join([kind, *(f"{word}={value}" for word, value in keywords.items())])
            found[name] = run(MODELS[kind](), **keywords)
    print(json.dumps(found))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
