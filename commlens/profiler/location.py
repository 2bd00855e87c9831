"""Where a rank writes, agreed among ranks without ever waiting for one.

The first rank to come names the run with one atomic compare-and-set in the
job's own store; the others get its answer. No rank needs any other to be
recording. A rank whose folder cannot be written uses a local one, and the
report merges the parts.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from commlens.profiler import live

STORE_KEY = "commlens/run"
PATIENCE_S = 10.0  # for an answer from the store; a rank that gets none goes on alone


class Agreement:
    """Asks the store on a thread of its own, for the store may be slow or gone."""

    def __init__(self, store: Any, generation: int = 1) -> None:
        self._answer: str | None = None
        # torchrun restarts a failed job on the same store, where the name of the attempt before still is.
        key = f"{STORE_KEY}/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}/{generation}"
        self._asked = threading.Thread(target=self._ask, args=(store, key), name="commlens-name", daemon=True)
        self._asked.start()

    def _ask(self, store: Any, key: str) -> None:
        try:
            answer = store.compare_set(key, "", new_run_id())
            self._answer = answer.decode() if isinstance(answer, bytes) else str(answer)
        except Exception:  # noqa: BLE001 - the boundary inside the job; stores raise types of their own
            self._answer = None

    def run_id(self, patience_s: float = PATIENCE_S) -> str:
        """The name the ranks agree on, or one derived from what the job's ranks share."""
        self._asked.join(patience_s)
        return self._answer or _fallback_id()


def new_run_id() -> str:
    return f"{time.strftime('%Y%m%d-%H%M%S')}-{_script()}-{secrets.token_hex(2)}"


def _fallback_id() -> str:
    shared = "/".join(
        os.environ.get(name, "")
        for name in ("MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT")
    )
    return f"{time.strftime('%Y%m%d')}-{_script()}-{hashlib.sha256(shared.encode()).hexdigest()[:8]}"


def _script() -> str:
    stem = Path(sys.argv[0]).stem if sys.argv and sys.argv[0] not in ("", "-c", "-m") else "python"
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", stem)[:40] or "python"


def make_run_folder(requested: str, run_id: str) -> Path:
    """Creates the run's folder where it was asked for, else in the machine's temporary folder.

    Raises:
        OSError: Neither place can be written.
    """
    wanted = Path(requested) / run_id
    try:
        wanted.mkdir(parents=True, exist_ok=True)
        if os.access(wanted, os.W_OK | os.X_OK):
            return wanted
        reason = "permission denied"
    except OSError as error:
        reason = error.strerror or str(error)
    local = Path(tempfile.gettempdir()) / f"commlens-{os.getuid()}" / run_id
    local.mkdir(parents=True, exist_ok=True)
    live.warn(f"cannot write to {requested} ({reason}); this rank is recorded in {local}")
    return local
