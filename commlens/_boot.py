"""Runs at interpreter start when COMMLENS or COMMLENS_FIX is set (see commlens.pth).

Nothing is recorded or changed yet, and torch is not imported: a finder waits for
`torch.distributed.distributed_c10d`; a fix is applied when that module's `init_process_group` is
called, and recording starts when it returns. torchrun's agent, DataLoader workers, plain scripts
and other tools never call it.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

TARGET = "torch.distributed.distributed_c10d"
OFF = ("", "0", "off", "false", "no")


def _attach(module: ModuleType) -> None:
    try:
        from commlens.profiler.attach import install

        install(module)
    except Exception as error:  # noqa: BLE001 - the boundary inside the job, which live.py guards from here on
        reason = " ".join(str(error).split())[:300]
        with contextlib.suppress(Exception):
            sys.stderr.write(f"commlens: nothing is recorded or applied ({type(error).__name__}: {reason})\n")


class _AttachOnImport:
    """Meta path finder that acts once, on the import of `TARGET`."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != TARGET:
            return None
        if self in sys.meta_path:
            sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def execute_then_attach(module: ModuleType) -> None:
            execute(module)
            _attach(module)

        loader: Any = spec.loader
        loader.exec_module = execute_then_attach
        return spec


def recording() -> bool:
    """Whether COMMLENS asks for a recording."""
    return os.environ.get("COMMLENS", "").strip().lower() not in OFF


if (recording() or os.environ.get("COMMLENS_FIX", "").strip()) and TARGET not in sys.modules:
    sys.meta_path.insert(0, _AttachOnImport())
