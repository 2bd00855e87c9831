"""Deep windows: torch.profiler for a few whole steps, at the same step numbers on every rank.

A window begins and ends where the recorder counts steps: at the end of the optimizer's step, on the thread that
trains. torch lets a session end on no other thread, and holds the interpreter while it writes the file out, so the job
stands still for both; how long is kept, and the steps up to `clear_step` are never analysed as light ones.
"""

from __future__ import annotations

import gzip
import os
import shutil
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from commlens.profiler import live, torch_profiler
from commlens.profiler.clock import now, wall_offset_ns
from commlens.profiler.graphs import is_capturing
from commlens.profiler.window_plan import VARIABLE, Plan, read_plan
from commlens.trace.schema import MISSING, WINDOW_FILE

if TYPE_CHECKING:
    from collections.abc import Callable

    from commlens.profiler.phases import Phases

LIMIT_NS: Final = 60_000_000_000  # a window may last; what torch keeps of it grows all the while
MOST_GROWTH: Final = 2 << 30  # bytes that the process may grow by meanwhile
EXPORT_PATIENCE_S: Final = 20.0  # at exit, for the file of a window that has ended
KEPT: Final = 256  # windows that rank.json tells of
NEVER: Final = sys.maxsize
_QUICK: Final = 1  # of gzip's levels


@dataclass
class Window:
    """One window of this rank; times of the recorder's monotonic clock, ns.

    Attributes:
        state: pending, preparing, running, exporting; then done, cut (it was stopped early), discarded, or skipped.
        clear_step: the first step that it did not disturb, None while that is not known.
        stop_ns: how long the training thread stood still for its beginning and its end.
        export_ns: how long the interpreter was held for its file.
        wall_offset_ns: wall clock less the recorder's when it began: the profiler's times are of the wall clock.
    """

    first_step: int
    steps: int
    state: str = "pending"
    why: str | None = None
    start_ns: int = MISSING
    end_ns: int = MISSING
    stop_ns: int = 0
    export_ns: int = 0
    bytes: int = 0
    clear_step: int | None = None
    wall_offset_ns: int | None = None
    session: torch_profiler.Session | None = field(default=None, repr=False)
    drained: Any = field(default=None, repr=False)  # an event of the device: when what the steps launched has run

    @property
    def file(self) -> str:
        """Its name in the rank's folder."""
        return WINDOW_FILE.format(step=self.first_step)

    def described(self, offset_ns: int) -> dict[str, Any]:
        """The entry of rank.json."""
        times = {
            name: value + offset_ns if value != MISSING else None
            for name, value in (("start_ns", self.start_ns), ("end_ns", self.end_ns))
        }
        same = ("first_step", "steps", "state", "why", "stop_ns", "export_ns", "bytes", "clear_step", "wall_offset_ns")
        kept = {name: getattr(self, name) for name in same}
        return {**kept, **times, "file": self.file if self.state in ("done", "cut") else None}


class Windows:
    """The windows of one rank: those planned, and those asked for while the job runs.

    Args:
        phases: the book of phases, whose boundary between two steps it is called at.
        on_change: told when there is something new for rank.json.
    """

    def __init__(self, phases: Phases, on_change: Callable[[], None]) -> None:
        self.held_ns = 0  # what the job stood still for since the last flush
        self.all: list[Window] = []
        self._phases = phases
        self._on_change = on_change
        self._plan = _plan()
        self._asked: list[Window] = []
        self._asking = threading.Lock()  # held for moments, by the thread that trains only at boundaries
        self._open: Window | None = None
        self._folder: Path | None = None
        self._placed = threading.Event()
        self._exporter: threading.Thread | None = None
        self._grown_from = 0
        phases.at_boundary = self.at_boundary
        phases.at_limit = self.at_limit
        self._aim()

    def described(self, offset_ns: int) -> list[dict[str, Any]]:
        """The entry of rank.json."""
        return [window.described(offset_ns) for window in self.all[-KEPT:]]

    def spans(self) -> list[tuple[int, int]]:
        """Steps of windows, with the one before, in which each is prepared: from one up to, not including, another."""
        newest = self.all[-KEPT:]
        return [(each.first_step - 1, each.first_step + each.steps) for each in newest if each.state != "skipped"]

    def ask(self, first_step: int, steps: int) -> bool:
        """Wants a window; False where the rank has come too far for it. Any thread may call it."""
        with self._asking:
            if self._phases.step >= first_step - 1:
                return False
            self._asked.append(Window(first_step, steps))
            self._phases.boundary = min(self._phases.boundary, first_step - 1)
        return True

    def at_boundary(self) -> None:
        """Between two steps, from the step before a window on until it is over."""
        try:
            self._advance(self._phases.step)
        except Exception as error:  # noqa: BLE001 - the boundary inside the job; torch's profiler raises all kinds
            self._fail(error)
        self._aim()

    def at_limit(self) -> None:
        """At the end of a phase that is later than a window may last."""
        window = self._open
        if window is None or window.session is None or not window.session.here or is_capturing():
            return
        try:
            self._end(window, f"{LIMIT_NS // 10**9} s, or {MOST_GROWTH >> 30} GiB, were over", kept=True)
        except Exception as error:  # noqa: BLE001 - the boundary inside the job; torch's profiler raises all kinds
            self._fail(error)
        self._aim()

    def place(self, folder: Path) -> None:
        """Tells the rank's folder, as soon as it is known."""
        self._folder = folder
        self._placed.set()

    def look(self) -> None:
        """Each second, on the flush thread: whether what torch keeps has grown too much."""
        window = self._open
        if window is not None and window.state == "running" and _resident_bytes() - self._grown_from > MOST_GROWTH:
            self._phases.limit_ns = 0

    def close(self) -> None:
        """When recording ends: a window that is open is given up.

        torch crashes a process that is left inside one. On another thread than the window's it is left to
        `live.leftover`, which that one calls at its next phase.
        """
        window = self._open
        live.leftover = None
        if window is None or window.session is None:
            return
        if window.session.here:
            self._leave_off(window)
        else:
            live.leftover = self.close

    def wait_for_file(self) -> None:
        """At exit: lets the file of a window that has ended be written."""
        if self._exporter is not None:
            self._exporter.join(EXPORT_PATIENCE_S)

    def _leave_off(self, window: Window) -> None:
        try:
            self._end(window, "the recording ended within it", kept=False)
        except Exception as error:  # noqa: BLE001 - the boundary inside the job; torch's profiler raises all kinds
            self._fail(error)

    def _advance(self, step: int) -> None:
        window = self._open or self._due(step)
        if window is None:
            return
        if window.state == "pending":
            self._prepare(window, step)
        elif (window.session is not None and not window.session.here) or is_capturing():
            return  # again at the next boundary
        elif window.session is not None and window.session.lost is not None:
            self._end(window, window.session.lost, kept=False)
        elif window.state == "preparing":
            self._start(window)
        elif step >= window.first_step + window.steps:
            if window.drained is None:
                window.drained = _device_mark()
            if window.drained is None or window.drained.query():
                self._end(window, None, kept=True)

    def _due(self, step: int) -> Window | None:
        """The window to prepare for in this step; those it is too late for are put down as skipped."""
        with self._asking:
            asked, self._asked = self._asked, [each for each in self._asked if each.first_step > step + 1]
        for late in [each for each in asked if each.first_step <= step]:
            self._skip(late, "another window was open, or this rank was past its first step")
        wanted = [each for each in asked if each.first_step == step + 1]
        if wanted:
            return wanted[0]
        planned = self._plan is not None and self._plan.next(step) == step + 1
        return Window(step + 1, self._plan.steps) if planned and self._plan is not None else None

    def _prepare(self, window: Window, step: int) -> None:
        reason = self._obstacle()
        if reason is not None:
            self._skip(window, reason)
            return
        begun = now()
        self.all.append(window)
        self._open, window.state = window, "preparing"
        window.session = torch_profiler.Session()
        window.session.prepare()
        self._charge(window, begun)

    def _obstacle(self) -> str | None:
        if torch_profiler.in_use():
            return "the job has a torch.profiler of its own"
        if threading.current_thread() is not threading.main_thread():
            return "the optimizer steps on another thread than the process's first"
        if is_capturing():
            return "a CUDA graph was being captured"
        if self._exporter is not None and self._exporter.is_alive():
            return "the file of the window before was still being written"
        return torch_profiler.watch()

    def _start(self, window: Window) -> None:
        assert window.session is not None
        window.wall_offset_ns = wall_offset_ns()
        self._grown_from = _resident_bytes()
        window.start_ns = now()
        window.session.start()
        window.state = "running"
        self._phases.limit_ns = window.start_ns + LIMIT_NS
        self._charge(window, window.start_ns)

    def _end(self, window: Window, why: str | None, kept: bool) -> None:
        """Ends the session; its file is written on a thread of its own."""
        assert window.session is not None
        window.end_ns = begun = now()
        if not window.session.stop():
            return  # again at the next boundary
        self._charge(window, begun)
        self._open, window.why = None, why
        self._phases.limit_ns = NEVER
        if kept and window.session.lost is None and window.state == "running":
            window.state = "exporting"
            args = (window, "done" if why is None else "cut")
            self._exporter = threading.Thread(target=self._export, args=args, name="commlens-window", daemon=True)
            self._exporter.start()
        else:
            self._close(window, "discarded")

    def _export(self, window: Window, state: str) -> None:
        try:
            self._write(window)
        except Exception as error:  # noqa: BLE001 - the boundary inside the job
            window.why, state = f"its file could not be written ({live.one_line(error)})", "discarded"
        self._close(window, state)

    def _write(self, window: Window) -> None:
        """Writes the file of a window and sets its size.

        Raises:
            OSError: It cannot be written, or where is not known in time.
        """
        self._placed.wait(EXPORT_PATIENCE_S)
        if self._folder is None or window.session is None:
            raise OSError("where this rank writes is not known")
        path = self._folder / window.file
        raw, part = (path.with_name(f".{path.name}.{end}") for end in ("raw", "part"))
        try:
            begun = now()
            window.session.export(raw)
            window.session = None  # to take it apart holds the interpreter as well
            window.export_ns = now() - begun
            self.held_ns += window.export_ns
            with raw.open("rb") as text, gzip.open(part, "wb", compresslevel=_QUICK) as file:
                shutil.copyfileobj(text, file, 1 << 20)
            window.bytes = part.stat().st_size
            part.replace(path)
        finally:
            for left in (raw, part):
                left.unlink(missing_ok=True)

    def _close(self, window: Window, state: str) -> None:
        window.session = window.drained = None
        # The step under way was disturbed, and with others' waiting for this rank the one after it.
        window.clear_step = self._phases.step + 2
        window.state = state
        self._on_change()

    def _skip(self, window: Window, why: str) -> None:
        window.state, window.why = "skipped", why
        window.clear_step = window.first_step
        self.all.append(window)
        self._on_change()

    def _fail(self, error: Exception) -> None:
        """No window is tried again in this process once torch's profiler raised."""
        live.warn(f"no deep windows from here on: torch.profiler failed ({live.one_line(error)})")
        self._plan, self._asked = None, []
        window, self._open = self._open, None
        self._phases.limit_ns = NEVER
        if window is not None:
            window.why = f"torch.profiler failed ({live.one_line(error)})"
            self._close(window, "discarded")

    def _charge(self, window: Window, since_ns: int) -> None:
        held = now() - since_ns
        window.stop_ns += held
        self.held_ns += held
        self._on_change()

    def _aim(self) -> None:
        """Sets the boundary at which there is something to do."""
        step = self._phases.step
        planned = self._plan.next(step) if self._plan is not None else None
        if self._plan is not None and planned == step + 1 and self._dealt(planned):
            planned = self._plan.next(planned)
        with self._asking:
            wanted = [each.first_step - 1 for each in self._asked]
            wanted += [planned - 1] if planned is not None else []
            self._phases.boundary = step + 1 if self._open is not None else min(wanted, default=NEVER)

    def _dealt(self, first_step: int) -> bool:
        return bool(self.all) and self.all[-1].first_step == first_step


def _plan() -> Plan | None:
    text = os.environ.get(VARIABLE, "").strip()
    if not text or text.lower() in ("0", "off", "no", "false"):
        return None
    try:
        return read_plan(text)
    except ValueError as error:
        live.warn(f"no deep windows: {VARIABLE} is not understood: {error}")
        return None


def _device_mark() -> Any:
    """An event after all that the current stream holds, None without a device."""
    import torch

    if not (torch.cuda.is_available() and torch.cuda.is_initialized()):
        return None
    mark = torch.cuda.Event()
    mark.record()
    return mark


def _resident_bytes() -> int:
    try:
        pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    except (OSError, IndexError):
        return 0
    return int(pages) * os.sysconf("SC_PAGESIZE")
