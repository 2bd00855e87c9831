"""A rank that writes into its node's folder: it starts the packing process where there is none, and waits for it last.

Touches node-local files only.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from commlens.profiler import live
from commlens.profiler.packing.asked import Packing
from commlens.profiler.packing.presence import PACKER, Presence, is_recording, take
from commlens.profiler.packing.state import FAILED, PACKED, STATE_FILE, WAITING, State, read_state

EXIT_PATIENCE_S: Final = 20.0
_LOOK_S: Final = 5.0
_STARTS: Final = 3  # of packing processes by one rank; where they die there is no point in more
_REAP_S: Final = 2.0
_TOLD: Final = ".told"
_LOG: Final = ".packer.log"
# The first process ends at once, so that the second is no child of the rank, whose launcher may wait for any child.
_PROGRAM: Final = (
    "import os, sys\nif os.fork(): os._exit(0)\nsys.path.append(sys.argv[1])\n"
    "from commlens.profiler.packing.process import main\nmain(sys.argv[2:])\n"
)


class Node:
    """The node of one rank.

    Args:
        local: node-local folder of the run.
        run: folder of the run on shared storage; never touched here.
        packing: how it is packed.
        rank: global rank.

    Raises:
        FileExistsError: Another process is this rank.
        OSError: `local` cannot be used.
    """

    def __init__(self, local: Path, run: Path, packing: Packing, rank: int) -> None:
        self.local = local
        self.run = run
        self._packing = packing
        self._rank = rank
        self._presence = Presence(local, rank)
        self._reaper: threading.Thread | None = None
        self._starts = 0
        self._is_mine = False
        self._next_s = 0.0

    def described(self) -> dict[str, Any]:
        """The entry of run.json."""
        return {"local": os.fspath(self.local), "run": os.fspath(self.run), "every_s": self._packing.every_s}

    def look(self) -> None:
        """Starts the packing process where it is missing; says what went wrong with it, once on the node."""
        if time.monotonic() < self._next_s:
            return
        self._next_s = time.monotonic() + _LOOK_S
        self._start_where_missing(anew=True)
        if self._is_mine:
            self._tell(read_state(self.local))

    def leave(self, at_exit: bool = True, patience_s: float = EXIT_PATIENCE_S) -> None:
        """This rank has written everything; at exit the last of the node waits for its pack, `patience_s` at most."""
        self._presence.leave()
        if not at_exit:
            self._start_where_missing(anew=False)
            return
        if self._reaper is not None:
            self._reaper.join(_REAP_S)
        if is_recording(self.local):
            return
        state = self._wait(time.monotonic() + patience_s)
        if state.name == FAILED:
            self._tell(state)
        elif state.name != PACKED:
            self._tell(State(why=state.why or f"not yet, after {patience_s:.0f} s: the storage is slow, or hangs"))

    def abandon(self) -> None:
        """Leaves everything to the parent, in the child of a fork."""
        self._presence.let_go()

    def _wait(self, deadline: float) -> State:
        """What became of the node's pack."""
        while True:
            is_there = self._start_where_missing(anew=False)
            state = read_state(self.local) if self.local.exists() else State(PACKED)
            if state.name != WAITING or time.monotonic() > deadline:
                return state
            if not is_there:
                return State(why=state.why or f"its packing process ends by itself: {self.local / _LOG}")
            time.sleep(0.02)

    def _start_where_missing(self, anew: bool) -> bool:
        """Whether there is a packing process; `anew`: also after one that has done its work."""
        try:
            lock = take(self.local / PACKER)
        except OSError:  # it is packed and gone, or no file can be opened now
            return False
        if lock is None:
            return True
        try:
            if self._starts < _STARTS and (anew or read_state(self.local).name == WAITING):
                self._start(lock)
                return True
        except OSError as error:
            self._tell(State(why=f"the packing process does not start: {live.one_line(error)}"))
        finally:
            os.close(lock)
        return False

    def _start(self, lock: int) -> None:
        """Hands the lock to a process of its own."""
        self._starts += 1
        self._is_mine = True
        (self.local / STATE_FILE).unlink(missing_ok=True)
        package = Path(__file__).parents[3]
        every_s = self._packing.every_s or 0.0
        arguments = [self.local, self.run, every_s, int(self._packing.keep), self._rank, _ranks_here(), lock]
        with (self.local / _LOG).open("ab") as log:
            # In a session of its own: signals to the job's process group are not for it.
            started = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM, os.fspath(package), *map(str, arguments)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.local,
                env={**os.environ, "COMMLENS": "0", "COMMLENS_FIX": "", "OMP_NUM_THREADS": "1"},
                pass_fds=(lock,),
                start_new_session=True,
            )
        self._reaper = threading.Thread(target=started.wait, name="commlens-reaper", daemon=True)
        try:
            self._reaper.start()
        except RuntimeError:  # at the interpreter's end
            self._reaper = None
            with suppress(subprocess.TimeoutExpired):
                started.wait(_REAP_S)

    def _tell(self, state: State) -> None:
        if not state.why:
            return
        try:
            os.close(os.open(self.local / _TOLD, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
        except OSError:
            return
        live.warn(
            f"this node is not packed into {self.run} ({state.why}); its ranks are in {self.local};"
            f" next: commlens pack {self.local} -o {self.run}"
        )


def _ranks_here() -> int:
    """How many ranks of this node will come, as far as is known: all of them where none is left out."""
    if os.environ.get("COMMLENS_RANKS", "").strip():
        return 0
    said = os.environ.get("LOCAL_WORLD_SIZE", "")
    return int(said[:9]) if said.isdecimal() else 0
