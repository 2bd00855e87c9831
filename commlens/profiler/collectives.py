"""Sees every collective at torch's dispatcher, whoever issues it.

A kernel at the BackendSelect key runs just before the backend's own kernel, for
plain, async and functional collectives, DTensor, the DDP reducer and FSDP2
alike. It notes the call and *redispatches*. It must not call the backend's
kernel object directly: that holds the interpreter lock while Gloo takes its
queue's lock, and a Gloo thread dropping a tensor takes the two the other way
round, which deadlocks the job. `redispatch_boxed` releases the lock.
"""

from __future__ import annotations

import threading
import weakref
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any, NamedTuple

from commlens.profiler import live
from commlens.profiler.buckets import Buckets
from commlens.profiler.clock import cpu_now, now
from commlens.profiler.groups import Group, Groups
from commlens.profiler.operators import OPERATORS, Operator, first_tensor, num_bytes
from commlens.profiler.slots import Slots
from commlens.trace.schema import DTYPES, MISSING, TIMINGS

if TYPE_CHECKING:
    from collections.abc import Callable

    from commlens.profiler.phases import Phases

_HOST, _WAIT, _ENQUEUE_ONLY = (TIMINGS.index(name) for name in ("host", "wait", "enqueue_only"))
_OTHER_DTYPE = DTYPES.index("other")
_MAX_REMEMBERED = 4096
HOOK_SAMPLE = 7  # prime, so that calls which take turns are sampled evenly
_open: CollectiveLog | None = None  # where the hooks write; they step aside where there is none
_libraries: list[Any] = []  # a torch Library takes its kernels out when it is collected


class Ticket(NamedTuple):
    """What a later wait needs to find its collective again."""

    slot: int
    event: int
    ends_at_wait: bool  # the wait's return is the end


class CollectiveLog:
    """The recorder's book of collectives; the hooks below write into it."""

    source = "dispatcher"
    exit_patience_s = 60.0  # for callbacks in flight: without us the destructor of the process group waits for the same

    def __init__(self, groups: Groups, phases: Phases) -> None:
        import torch
        from torch._C._distributed_c10d import ProcessGroup, Work

        self.slots = Slots()
        self.groups = groups
        self.buckets = Buckets()
        self.in_flight: set[int] = set()
        self.hook_ns = 0
        self._phases = phases
        self._unbox_group = ProcessGroup.unbox
        self._unbox_work = Work.unbox
        self._events = count()
        self._calls = count()
        self._threads: dict[int, int] = {threading.get_ident(): 0}
        self._local = threading.local()
        self._tickets: dict[int, tuple[weakref.ref[Any], Ticket]] = {}
        self._by_pointer: dict[int, Ticket] = {}
        self._dtypes = {getattr(torch, name): code for code, name in enumerate(DTYPES) if hasattr(torch, name)}

    def hook_clock(self) -> Callable[[], int]:
        """The CPU clock for one call in `HOOK_SAMPLE`, for the others one that stands at 0: reading it costs."""
        return int if next(self._calls) % HOOK_SAMPLE else cpu_now

    def install(self) -> list[str]:
        """Puts the hooks in, once per process.

        Returns:
            Names of operators that this torch does not have.
        """
        return install()

    def take_hook_ns(self) -> int:
        """CPU time of the hooks since the last call."""
        taken, self.hook_ns = self.hook_ns, 0
        return taken

    def unseen_ns(self) -> int:
        """What a collective costs beyond what hooks time themselves and the way into them, ns: nothing."""
        return 0

    def open(self) -> None:
        """The hooks write here from now on."""
        global _open
        _open = self

    def close(self) -> None:
        """The hooks step aside."""
        global _open
        if _open is self:
            _open = None

    def failure(self) -> str:
        """Why recording broke outside Python: never here."""
        return ""

    def thread(self) -> int:
        """Small number of the calling thread; 0 is the one that started recording."""
        ident = threading.get_ident()
        number = self._threads.get(ident)
        if number is None:
            number = self._threads[ident] = min(len(self._threads), 127)
        return number

    def begin(self, operator: Operator, code: int, args: tuple[Any, ...]) -> tuple[Ticket, Group, bool, bool]:
        """Notes a call that is about to enter the backend."""
        group = self.groups.of(self._unbox_group(args[operator.group]))
        in_bytes = num_bytes(args[operator.inputs]) if operator.inputs is not None else 0
        out_bytes = in_bytes
        if operator.outputs != operator.inputs:
            out_bytes = num_bytes(args[operator.outputs]) if operator.outputs is not None else 0
        tensor = first_tensor(args[0])
        if tensor is None and operator.inputs is not None:
            tensor = first_tensor(args[operator.inputs])
        host = group.host_cpu if tensor is None or tensor.is_cpu else group.host_device
        is_sync = operator.is_async is not None and len(args) > operator.is_async and not args[operator.is_async]
        peer = group.global_rank(args[operator.peer]) if operator.peer is not None else MISSING
        event = next(self._events)
        slot = self.slots.issue(
            event,
            _sequence(group, operator.op, peer),
            in_bytes,
            out_bytes,
            now(),
            group.size,
            peer,
            self._phases.step,
            self.buckets.of(group.name, operator.op, in_bytes),
            group.code,
            code,
            MISSING if operator.op == "barrier" or tensor is None else self._dtypes.get(tensor.dtype, _OTHER_DTYPE),
            _HOST if host else _ENQUEUE_ONLY,
            self.thread(),
        )
        return Ticket(slot, event, host and is_sync), group, host, is_sync

    def finish(
        self,
        operator: Operator,
        begun: tuple[Ticket, Group, bool, bool],
        args: tuple[Any, ...],
        result: Any,
        issued_ns: int,
        returned_ns: int,
    ) -> None:
        """Notes that the backend has taken the call, and arranges to see its end."""
        ticket, group, host, is_sync = begun
        boxed = result if operator.work is None else result[operator.work]
        if boxed is None:  # monitored_barrier: the call itself stands still, and there is no Work
            self._note_wait(ticket._replace(ends_at_wait=host), issued_ns, returned_ns)
            return
        work = self._unbox_work(boxed)
        if not is_sync:
            if host:
                ticket = self._watch(ticket, operator.code, group, work)
            self._remember(work, ticket)
            self._remember_output(operator, args, ticket)
        # Held until the caller has it: a Work that nobody holds is wrapped anew and would not be recognised.
        # A synchronous call does nothing between issue and wait: its thread stands still from the issue on.
        self._local.last = (work, ticket, issued_ns if is_sync else None)

    def refused(self, operator: Operator, ticket: Ticket) -> None:
        """Forgets a call whose arguments the backend did not take; a barrier that raised may have stood still."""
        if operator.op != "barrier":
            self.slots.cancel(ticket.slot, ticket.event)

    def _watch(self, ticket: Ticket, code: int, group: Group, work: Any) -> Ticket:
        if code not in group.without_future:
            try:
                future = work.get_future()
            except RuntimeError:  # Gloo's reduce_scatter, send and recv have none
                group.without_future.add(code)
            else:
                self.in_flight.add(ticket.event)
                future.add_done_callback(partial(self._done, ticket))
                return ticket
        self.slots.retime(ticket.slot, ticket.event, _WAIT)
        return ticket._replace(ends_at_wait=True)

    def _done(self, ticket: Ticket, future: Any) -> None:
        at_ns = now()
        clock = self.hook_clock()
        entered = clock()
        self.in_flight.discard(ticket.event)
        try:
            future.value()
        except Exception:  # noqa: BLE001 - a failed collective has no end; its error is the job's to handle
            return
        live.guarded(self.slots.completed, ticket.slot, ticket.event, at_ns)
        self.hook_ns += HOOK_SAMPLE * (clock() - entered)

    def _remember(self, work: Any, ticket: Ticket) -> None:
        if len(self._tickets) >= _MAX_REMEMBERED:  # works that nobody waited for, like those of DDP's reducer
            self._tickets = {key: entry for key, entry in self._tickets.items() if entry[0]() is not None}
        self._tickets[id(work)] = (weakref.ref(work), ticket)

    def _remember_output(self, operator: Operator, args: tuple[Any, ...], ticket: Ticket) -> None:
        if operator.outputs is None:
            return
        output = first_tensor(args[operator.outputs])
        if output is None:
            return
        if len(self._by_pointer) >= _MAX_REMEMBERED:
            self._by_pointer.clear()
        address = _address(output)
        if address is not None:
            self._by_pointer[address] = ticket

    def waited(self, work: Any, from_ns: int, to_ns: int) -> None:
        """Notes that `work.wait()` held the calling thread."""
        last = getattr(self._local, "last", None)
        if last is not None and last[0] is work:
            self._local.last = None
            self._tickets.pop(id(work), None)
            self._note_wait(last[1], from_ns if last[2] is None else last[2], to_ns)
        else:
            found = self._tickets.pop(id(work), None)
            self._note_wait(found[1] if found is not None and found[0]() is work else None, from_ns, to_ns)

    def waited_for_tensor(self, tensor: Any, from_ns: int, to_ns: int) -> None:
        """Notes that a functional collective's `wait_tensor` held the calling thread."""
        address = _address(tensor)
        if address is not None:
            self._note_wait(self._by_pointer.pop(address, None), from_ns, to_ns)

    def _note_wait(self, ticket: Ticket | None, from_ns: int, to_ns: int) -> None:
        if ticket is None:
            return
        self.slots.waited(ticket.slot, ticket.event, from_ns, to_ns - from_ns)
        if ticket.ends_at_wait:
            self.slots.completed(ticket.slot, ticket.event, to_ns)


def _address(tensor: Any) -> int | None:
    """Where the tensor's memory is, None where it has none: torch.compile traces with such tensors."""
    if type(tensor).__name__ == "FakeTensor":  # asking it would warn the job
        return None
    try:
        return int(tensor.data_ptr())
    except RuntimeError:
        return None


def _sequence(group: Group, op: str, peer: int) -> int:
    if op in ("send", "recv"):
        return next(group.messages[peer, op == "send"])
    return next(group.sequence)


def install() -> list[str]:
    """Puts the hooks in, once per process.

    Returns:
        Names of operators that this torch does not have.
    """
    import torch

    if _libraries:
        return []
    library = torch.library.Library("c10d", "IMPL")
    after = torch._C._dispatch_keyset_full_after(torch._C.DispatchKey.BackendSelect)
    absent = []
    for name, operator in OPERATORS.items():
        packet = getattr(torch.ops.c10d, name, None)
        if packet is None:
            absent.append(name)
            continue
        hook = live.untraced(_collective_hook(operator, packet.default._handle.redispatch_boxed, after))
        library.impl(name, hook, "BackendSelect", with_keyset=True)
    _libraries.append(library)
    _install_waits(after)
    return absent


def _collective_hook(operator: Operator, redispatch: Callable[..., Any], after: Any) -> Callable[..., Any]:
    code = operator.code

    def hook(keyset: Any, *args: Any) -> Any:
        log = _open
        if log is None:
            return redispatch(keyset & after, *args)
        clock = log.hook_clock()
        entered = clock()
        try:
            begun = log.begin(operator, code, args)
        except Exception as error:  # noqa: BLE001 - the boundary inside the job
            live.give_up(error)
            return redispatch(keyset & after, *args)
        spent = clock() - entered
        issued = now()
        try:
            result = redispatch(keyset & after, *args)
        except BaseException:
            live.guarded(log.refused, operator, begun[0])
            raise
        returned = now()
        entered = clock()
        try:
            log.finish(operator, begun, args, result, issued, returned)
        except Exception as error:  # noqa: BLE001 - the boundary inside the job
            live.give_up(error)
        log.hook_ns += HOOK_SAMPLE * (spent + clock() - entered)
        return result

    return hook


def _install_waits(after: Any) -> None:
    import torch
    from torch._C._distributed_c10d import Work

    Work.wait = live.untraced(_work_wait(Work.wait))  # type: ignore[method-assign]
    library = torch.library.Library("_c10d_functional", "IMPL")
    redispatch = torch.ops._c10d_functional.wait_tensor.default._handle.redispatch_boxed
    library.impl("wait_tensor", live.untraced(_tensor_wait(redispatch, after)), "BackendSelect", with_keyset=True)
    _libraries.append(library)


def _work_wait(original: Callable[..., Any]) -> Callable[..., Any]:
    def wait(self: Any, *args: Any, **kwargs: Any) -> Any:
        log = _open
        if log is None:
            return original(self, *args, **kwargs)
        from_ns = now()
        result = original(self, *args, **kwargs)
        to_ns = now()
        clock = log.hook_clock()
        entered = clock()
        try:
            log.waited(self, from_ns, to_ns)
        except Exception as error:  # noqa: BLE001 - the boundary inside the job
            live.give_up(error)
        log.hook_ns += HOOK_SAMPLE * (clock() - entered)
        return result

    wait.__doc__ = original.__doc__
    return wait


def _tensor_wait(redispatch: Callable[..., Any], after: Any) -> Callable[..., Any]:
    def wait_tensor(keyset: Any, tensor: Any) -> Any:
        log = _open
        if log is None:
            return redispatch(keyset & after, tensor)
        from_ns = now()
        result = redispatch(keyset & after, tensor)
        to_ns = now()
        try:
            log.waited_for_tensor(tensor, from_ns, to_ns)
        except Exception as error:  # noqa: BLE001 - the boundary inside the job
            live.give_up(error)
        return result

    return wait_tensor
