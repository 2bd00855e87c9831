"""Process groups as the recorder knows them: a code, a name, members, counters."""

from __future__ import annotations

import threading
import weakref
from collections import defaultdict
from itertools import count
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

GLOO_WORKERS = 2  # torch's default (ProcessGroupGloo::Options::threads)
# Backends whose operations complete on the host, where the end can be seen.
HOST_BACKENDS = frozenset({"gloo", "mpi", "fake"})


class Group:
    """One process group of this process.

    `sequence` numbers its collectives from 0, `messages` its sends and
    receives per peer and direction: the keys that match ranks with one another.
    """

    def __init__(
        self,
        code: int,
        name: str,
        desc: str,
        ranks: list[int],
        backend: str,
        size: int,
        workers: int | None,
    ) -> None:
        self.code = code
        self.name = name
        self.desc = desc
        self.ranks = ranks
        self.backend = _short(backend)
        self.size = size
        self.workers = workers
        self.host_cpu = _backend_for(backend, "cpu") in HOST_BACKENDS
        self.host_device = _backend_for(backend, "cuda") in HOST_BACKENDS
        self.sequence = count()
        self.messages: defaultdict[tuple[int, bool], count[int]] = defaultdict(count)
        self.without_future: set[int] = set()

    def global_rank(self, group_rank: int) -> int:
        return self.ranks[group_rank] if 0 <= group_rank < len(self.ranks) else -1

    def describe(self) -> dict[str, Any]:
        """The entry of rank.json."""
        return {
            "name": self.name,
            "desc": self.desc,
            "ranks": self.ranks,
            "size": self.size,
            "backend": self.backend,
            "workers": self.workers,
        }


def _short(backend: str) -> str:
    """`gloo` for `cpu:gloo,cuda:gloo`; left as it is where the devices differ."""
    names = {part.split(":", 1)[-1] for part in backend.split(",")}
    return names.pop() if len(names) == 1 else backend


def _backend_for(backend: str, device: str) -> str:
    """Backend of `device` in torch's `cpu:gloo,cuda:nccl` notation."""
    pairs = dict(part.split(":", 1) for part in backend.split(",") if ":" in part)
    return pairs.get(device, "" if pairs else backend)


class Groups:
    """All process groups met so far."""

    def __init__(self, on_new: Callable[[], None]) -> None:
        self._by_identity: dict[int, Group] = {}
        self._by_name: dict[str, Group] = {}
        self._names: defaultdict[str, int] = defaultdict(int)
        self._watched: list[weakref.ref[Any]] = []
        self._lock = threading.Lock()
        self._on_new = on_new
        self.on_gone: Callable[[int], None] | None = None  # given the identity of a group that was destroyed
        self.ordered: list[Group] = []

    def of(self, process_group: Any) -> Group:
        """The group of a torch ProcessGroup, registered on first sight."""
        found = self._by_identity.get(id(process_group))
        if found is not None:
            return found
        with self._lock:  # two threads that meet a group at the same time must not number its collectives each
            return self._by_identity.get(id(process_group)) or self._register(process_group)

    def _register(self, process_group: Any) -> Group:
        from torch.distributed import distributed_c10d as c10d

        members = c10d._world.pg_group_ranks.get(process_group)
        if members is None:  # not one of torch's registered groups: Python may wrap it anew at each call
            return self._unregistered(process_group)
        group = self._new(process_group, sorted_members(members), _backend_config(c10d, process_group))
        key = id(process_group)
        self._by_identity[key] = group
        # Weak: destroy_process_group must really destroy, and its identity may then be re-used.
        self._watched.append(weakref.ref(process_group, lambda _: self._forget(key)))
        return group

    def _forget(self, key: int) -> None:
        self._by_identity.pop(key, None)
        if self.on_gone is not None:
            self.on_gone(key)

    def _unregistered(self, process_group: Any) -> Group:
        name = str(process_group.group_name or "unnamed")
        if name not in self._by_name:
            self._by_name[name] = self._new(process_group, [], str(process_group.name()))
        return self._by_name[name]

    def _new(self, process_group: Any, ranks: list[int], backend: str) -> Group:
        group = Group(
            code=len(self.ordered),
            name=self._unique(str(process_group.group_name or "unnamed")),
            desc=str(process_group.group_desc or "undefined"),
            ranks=ranks,
            backend=backend.lower(),
            size=process_group.size(),
            workers=_gloo_workers(process_group),
        )
        self.ordered.append(group)
        self._on_new()
        return group

    def _unique(self, name: str) -> str:
        self._names[name] += 1
        return name if self._names[name] == 1 else f"{name}#{self._names[name]}"


def sorted_members(rank_in_group: dict[int, int]) -> list[int]:
    """Global ranks in the order of their rank in the group."""
    return [rank for rank, _ in sorted(rank_in_group.items(), key=lambda item: item[1])]


def _backend_config(c10d: Any, process_group: Any) -> str:
    return str(c10d._world.pg_backend_config.get(process_group, "")) or str(process_group.name())


def _gloo_workers(process_group: Any) -> int | None:
    """Threads that execute the queue of a Gloo group, None where there is no such queue."""
    import torch

    try:
        backend = process_group._get_backend(torch.device("cpu"))
    except RuntimeError:
        return None
    if "gloo" not in type(backend).__name__.lower():
        return None
    return int(getattr(getattr(backend, "options", None), "_threads", GLOO_WORKERS))
