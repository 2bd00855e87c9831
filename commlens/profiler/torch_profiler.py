"""The one session of torch.profiler that a process can have at a time: the recorder's, or the job's.

What torch 2.13 does with two, tried: on one thread the second silently ends the first; with one on each of two threads,
ending the first crashes the process, as does beginning a session that was prepared before another ran, and leaving
the process, or the thread, inside one. So every session that the job prepares is noticed here, and the job's wins.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Final

from commlens.profiler import live

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_BEGINNINGS: Final = ("_prepare_profiler", "_enable_profiler")
_END: Final = "_disable_profiler"
_absent: str | None = "not watched yet"
_job: int | None = None  # thread in which the job's own session is
_own_call: int | None = None  # thread in which a session of ours calls torch
_running: Session | None = None


def watch() -> str | None:
    """Notices the job's sessions from now on, once per process.

    Returns:
        Why no session can be had in this torch, None where it can.
    """
    global _absent
    if _absent != "not watched yet":
        return _absent
    import torch.autograd.profiler as module

    missing = [name for name in (*_BEGINNINGS, _END) if not hasattr(module, name)]
    missing += [] if hasattr(_profile_module(), "_KinetoProfile") else ["_KinetoProfile"]
    _absent = f"this torch's profiler has no {missing[0]}" if missing else None
    for name in () if missing else _BEGINNINGS:
        setattr(module, name, _before(_job_begins, getattr(module, name)))
    if not missing:
        setattr(module, _END, _after(getattr(module, _END), _job_ended))
    return _absent


def in_use() -> bool:
    """Whether the job has a session, or has prepared one."""
    return _job is not None


class Session:
    """One session of ours, on the thread that prepares it.

    Attributes:
        lost: why what it recorded is lost, None while it is not.
    """

    def __init__(self) -> None:
        self.lost: str | None = None
        self._thread = threading.get_ident()
        self._is_on = False
        self._profile: Any = None

    @property
    def here(self) -> bool:
        """Whether the calling thread is its own."""
        return threading.get_ident() == self._thread

    def prepare(self) -> None:
        """Allocates; the first session of a process connects to the devices' tracing, which takes seconds."""
        import torch

        global _running
        activity = torch.profiler.ProfilerActivity
        activities = [activity.CPU]
        if torch.cuda.is_available() and torch.cuda.is_initialized():
            activities.append(activity.CUDA)
        self._profile = _profile_module()._KinetoProfile(activities=activities)
        _running = self
        self._call(self._profile.prepare_trace)

    def start(self) -> None:
        """Begins to record."""
        self._is_on = True
        self._call(self._profile.start_trace)

    def stop(self) -> bool:
        """Ends it; the calling thread must be its own. Waits for no device, as `torch.profiler` would at its end.

        Returns:
            False where it cannot end yet: the job has a session on another thread.
        """
        global _running
        if self._is_on and self.lost is not None:
            if in_use():
                return False
            # The job's session on another thread ended what ours would end: it needs something to end.
            self._call(self._profile.profiler._prepare_trace)
        if self._is_on:
            self._end()
        _running = None
        return True

    def _end(self) -> None:
        self._is_on = False
        self._profile.profiler.use_device = None  # all that it does with it at the end is to wait for that device
        self._call(self._profile.stop_trace)

    def export(self, path: Path) -> None:
        """Writes what was recorded as JSON; on any thread, but torch holds the interpreter meanwhile."""
        self._profile.export_chrome_trace(str(path))

    def replaced(self) -> None:
        """Gives way to a session of the job's, which is about to begin on the calling thread."""
        if self._is_on and self.here and self.lost is None:
            self._end()
        self.lost = "the job began a torch.profiler of its own"

    def _call(self, method: Callable[[], None]) -> None:
        global _own_call
        _own_call = threading.get_ident()
        try:
            method()
        finally:
            _own_call = None


def _job_begins() -> None:
    global _job
    if _own_call == threading.get_ident():
        return
    _job = threading.get_ident()
    if _running is not None:
        _running.replaced()


def _job_ended() -> None:
    global _job
    if _own_call != threading.get_ident() and _job == threading.get_ident():
        _job = None


def _before(noticed: Callable[[], None], original: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        live.guarded(noticed)
        return original(*args, **kwargs)

    return call


def _after(original: Callable[..., Any], noticed: Callable[[], None]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return original(*args, **kwargs)
        finally:
            live.guarded(noticed)

    return call


def _profile_module() -> Any:
    import torch.profiler

    return torch.profiler
