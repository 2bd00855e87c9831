"""Forward, backward and optimizer: about six readings of the clock a step.

Backward is seen at torch's one entry into the autograd engine, the optimizer at
torch's own global step hooks, forward at the outermost modules (found by
`models.py` once the first backward shows that a model exists). Inside
`torch.compile` the hooks are skipped, so nothing of them is traced.
"""

from __future__ import annotations

import functools
import sys
import threading
import weakref
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from commlens.profiler import live
from commlens.profiler.buckets import Buckets
from commlens.profiler.clock import now
from commlens.trace.schema import PHASES

if TYPE_CHECKING:
    from collections.abc import Callable

_FORWARD, _BACKWARD, _OPTIMIZER = range(len(PHASES))
MAX_PENDING = 100_000  # phases between two flushes; more means that something else is wrong


class Phase(NamedTuple):
    """One finished phase; times on the recorder's monotonic clock, ns."""

    phase: int
    name: int
    start_ns: int
    end_ns: int
    step: int
    thread: int


class Marks(Protocol):
    """Told when a backward begins and ends, and how DDP's buckets lie."""

    def begin(self) -> None: ...
    def end(self) -> None: ...
    def lay_out(self, layouts: dict[str, list[list[int]]]) -> None: ...


class Phases:
    """The recorder's book of phases and its step counter."""

    def __init__(self, thread: Callable[[], int]) -> None:
        self.step = 0
        self.names: list[str] = [""]
        self.finished: list[Phase] = []
        self.buckets: Marks = Buckets()
        self.before_backward: Callable[[Any], None] | None = None  # given the tensors that it starts from
        self.after_backward: Callable[[], None] | None = None
        self.on_step: Callable[[int], None] | None = None  # given the step that begins
        self.after_step: Callable[[int, int], None] | None = None  # likewise and when, once windows have had their turn
        self.boundary = self.limit_ns = sys.maxsize  # from that step on, and from phases that end then on, call these
        self.at_boundary: Callable[[], None] | None = None
        self.at_limit: Callable[[], None] | None = None
        self.autocast: weakref.WeakKeyDictionary[Any, str | None] = weakref.WeakKeyDictionary()  # of models' forwards
        self._thread = thread
        self._local = threading.local()
        self._codes: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()
        self._primary: weakref.ref[Any] | None = None

    def enter(self, phase: int, owner: Any) -> None:
        """Opens a phase; a phase of the same kind inside one on the same thread is part of it."""
        open_phases = self._open()
        if phase in open_phases and open_phases[phase][0] is not owner:
            return
        if phase == _BACKWARD:
            if self.before_backward is not None:
                self.before_backward(owner.roots)
            self.buckets.begin()
        open_phases[phase] = (owner, now())

    def leave(self, phase: int, owner: Any) -> None:
        """Closes the phase that `owner` opened."""
        ended = now()
        open_phases = self._open()
        if phase not in open_phases or open_phases[phase][0] is not owner:
            return
        _, started = open_phases.pop(phase)
        if len(self.finished) < MAX_PENDING:
            name = 0 if phase == _BACKWARD else self._name(owner)
            self.finished.append(Phase(phase, name, started, ended, self.step, self._thread()))
        if phase == _BACKWARD:
            self.buckets.end()
            if self.after_backward is not None:
                self.after_backward()
        elif phase == _OPTIMIZER and self._is_primary(owner):
            self.step += 1
            if self.on_step is not None:
                self.on_step(self.step)
            if self.step >= self.boundary and self.at_boundary is not None:
                self.at_boundary()
            if self.after_step is not None:
                self.after_step(self.step, ended)
        if ended > self.limit_ns and self.at_limit is not None:
            self.at_limit()

    def _open(self) -> dict[int, tuple[Any, int]]:
        found = getattr(self._local, "open", None)
        if found is None:
            found = self._local.open = {}
        return found

    def _is_primary(self, optimizer: Any) -> bool:
        # With several optimizers a step ends when the one that stepped first steps again.
        primary = self._primary() if self._primary is not None else None
        if primary is None:
            self._primary = weakref.ref(optimizer)
            return True
        return primary is optimizer

    def _name(self, owner: Any) -> int:
        code = self._codes.get(owner)
        if code is None:
            code = self._codes[owner] = len(self.names)
            self.names.append(_unique(type(owner).__name__, self.names))
            self.autocast[owner] = autocast_dtype()
        return code


def autocast_dtype() -> str | None:
    """The data type that autocast computes in here, None where it is off."""
    import torch

    devices = [device for device in ("cuda", "cpu") if torch.is_autocast_enabled(device)]
    return str(torch.get_autocast_dtype(devices[0])).removeprefix("torch.") if devices else None


def _unique(name: str, taken: list[str]) -> str:
    if name not in taken:
        return name
    number = 2
    while f"{name}#{number}" in taken:
        number += 1
    return f"{name}#{number}"


_installed = False
_watched: weakref.WeakSet[Any] = weakref.WeakSet()
_classes: weakref.WeakSet[type] = weakref.WeakSet()


def install() -> dict[str, str]:
    """Puts the backward and optimizer hooks in, once per process.

    Returns:
        For each phase "ok", or why it cannot be seen.
    """
    global _installed
    import torch
    from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

    engine: Any = torch.autograd
    run = getattr(engine, "_engine_run_backward", None)
    if not _installed:
        _installed = True
        live.untraced(_enter)
        live.untraced(_leave)
        if run is not None:
            engine._engine_run_backward = live.untraced(_around_backward(run), below=False)
        register_optimizer_step_pre_hook(lambda optimizer, *_: _enter(_OPTIMIZER, optimizer))
        register_optimizer_step_post_hook(lambda optimizer, *_: _leave(_OPTIMIZER, optimizer))
    backward = "ok" if run is not None else "this torch has no torch.autograd._engine_run_backward"
    return {"backward": backward, "optimizer": "ok"}


class _Backward:
    """One run of autograd's engine."""

    __slots__ = ("roots",)

    def __init__(self, roots: Any) -> None:
        self.roots = roots


def _around_backward(run: Callable[..., Any]) -> Callable[..., Any]:
    def engine_run_backward(*args: Any, **kwargs: Any) -> Any:
        owner = _Backward(args[0] if args else None)
        _enter(_BACKWARD, owner)
        try:
            return run(*args, **kwargs)
        finally:
            _leave(_BACKWARD, owner)

    return engine_run_backward


def watch_forward(module: Any) -> None:
    """Sees the forward of one outermost module from now on.

    The module's class is given a `__call__`; the module itself is left as it
    is, because a hook on it would be pickled with it into the job's checkpoints.
    """
    _watched.add(module)
    cls = type(module)
    if cls in _classes:
        return
    _classes.add(cls)
    own = cls.__dict__.get("__call__")

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        # Looked up at each call, so that whoever patches nn.Module.__call__ later is still heard.
        run = own.__get__(self) if own is not None else super(cls, self).__call__
        if is_compiling() or self not in _watched:
            return run(*args, **kwargs)
        _enter(_FORWARD, self)
        try:
            return run(*args, **kwargs)
        finally:
            _leave(_FORWARD, self)

    from torch.compiler import is_compiling

    cls.__call__ = functools.wraps(own or cls.__call__)(call)


def _enter(phase: int, owner: Any) -> None:
    recorder = live.recorder
    if recorder is None:
        return
    try:
        recorder.phases.enter(phase, owner)
    except Exception as error:  # noqa: BLE001 - the boundary inside the job
        live.give_up(error)


def _leave(phase: int, owner: Any) -> None:
    recorder = live.recorder
    if recorder is None:
        if live.leftover is not None:
            live.leftover()
        return
    try:
        recorder.phases.leave(phase, owner)
    except Exception as error:  # noqa: BLE001 - the boundary inside the job
        live.give_up(error)
