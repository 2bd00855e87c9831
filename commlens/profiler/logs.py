"""Which book of collectives a job gets: the native one where it was built for this torch, else the one in Python."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
from typing import TYPE_CHECKING, Any

from commlens.profiler import live
from commlens.profiler.collectives import CollectiveLog

if TYPE_CHECKING:
    from commlens.profiler.groups import Groups
    from commlens.profiler.native_log import NativeLog
    from commlens.profiler.phases import Phases

VARIABLE = "COMMLENS_RECORDER"
MODULE = "commlens_native"


def new_log(groups: Groups, phases: Phases) -> CollectiveLog | NativeLog:
    """The log that COMMLENS_RECORDER asks for (`python` or `native`); without it the native one if it is there."""
    wanted = os.environ.get(VARIABLE, "").strip().lower()
    if wanted not in ("", "python", "native"):
        live.warn(f"{VARIABLE}={wanted} is neither python nor native; it is left out")
        wanted = ""
    if wanted != "python":
        try:
            found = _native_log(groups, phases)
        except (ImportError, OSError, RuntimeError) as error:
            live.warn(f"the native recorder cannot be used ({live.one_line(error)}), the one in Python is;"
                      " next: commlens build --force")  # fmt: skip
        else:
            if found is not None:
                return found
            if wanted == "native":
                live.warn("no native recorder was built for this torch, Python's is used; next: commlens build")
    return CollectiveLog(groups, phases)


def _native_log(groups: Groups, phases: Phases) -> NativeLog | None:
    from commlens.profiler.built import native

    path = native().found()
    if path is None:
        return None
    from commlens.profiler.native_log import NativeLog

    return NativeLog(load(os.fspath(path)), groups, phases)


def load(path: str) -> Any:
    """The compiled module at `path`.

    Raises:
        ImportError: It does not fit this torch or this Python.
    """
    import torch  # noqa: F401 - its libraries must be there first

    loader = importlib.machinery.ExtensionFileLoader(MODULE, path)
    spec = importlib.util.spec_from_file_location(MODULE, path, loader=loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module
