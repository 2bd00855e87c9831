"""The compiled parts: where they are kept, whether one fits, how one is made.

A part lies in the user's cache under a key of what it was made of and for, so
that another torch, another Python or newer sources never meet an old one. The
training job only looks; `commlens build` compiles.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import stat
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from commlens.errors import BuildError

HERE = Path(__file__).parent
PATIENCE_S = 900.0
_NOTE = "build.json"
_CXX_FLAGS = ("-O2", "-std=c++20", "-fPIC", "-shared", "-fvisibility=hidden")


@dataclass(frozen=True)
class Part:
    """One library: what it is made of, and what else it depends on."""

    name: str
    library: str
    folder: Path  # of its sources
    made_for: tuple[str, ...]

    @property
    def path(self) -> Path:
        """Where it lies, or would."""
        return cache_folder() / f"{self.name}-{self._key()}" / self.library

    def found(self) -> Path | None:
        """The library in the cache, None where there is none or where others may have written it."""
        path = self.path
        return path if path.is_file() and _is_ours(path) and _is_ours(path.parent) else None

    def note(self) -> dict[str, Any]:
        """How it was built; empty where that is not known."""
        try:
            found = json.loads((self.path.parent / _NOTE).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def is_by_another(self, compiler: Compiler) -> bool:
        """Whether it is there, but another compiler made it than the one at hand."""
        made_by = self.note().get("compiler")
        try:
            return made_by is not None and made_by != compiler_version(compiler.path())
        except BuildError:
            return False

    def sources(self) -> list[Path]:
        """Its sources, headers among them."""
        return sorted(path for path in self.folder.iterdir() if path.suffix in (".c", ".cpp", ".h"))

    def _key(self) -> str:
        digest = hashlib.sha256("\0".join((platform.machine(), *self.made_for)).encode())
        for path in self.sources():
            digest.update(path.name.encode() + b"\0" + path.read_bytes())
        return digest.hexdigest()[:16]


def native() -> Part:
    """The native recorder for this torch and this Python.

    Raises:
        ImportError: There is no torch.
    """
    import torch

    made_for = (torch.__version__, str(torch.version.git_version), sys.implementation.cache_tag or "", *_CXX_FLAGS)
    return Part("recorder", "commlens_native.so", HERE / "native", made_for)


def nccl_plugin() -> Part:
    """The plugin that NCCL loads; it depends on no torch."""
    from commlens.profiler.nccl_plugin import FLAGS, LIBRARY

    return Part("nccl", LIBRARY, HERE / "nccl", FLAGS)


def cache_folder() -> Path:
    """Where compiled parts are kept: `native` in COMMLENS_CACHE, else in the user's cache."""
    given = os.environ.get("COMMLENS_CACHE")
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # noqa: PTH111 - no home is no error
    return Path(given) / "native" if given else Path(home) / "commlens" / "native"


def _is_ours(path: Path) -> bool:
    """What a job loads must not be writable by others."""
    status = path.stat()
    return status.st_uid in (0, os.getuid()) and not status.st_mode & stat.S_IWOTH


class Compiler(NamedTuple):
    """The variable that names a compiler, and those to look for without it."""

    variable: str
    names: tuple[str, ...]

    def path(self) -> str:
        """The one to use.

        Raises:
            BuildError: There is none.
        """
        given = os.environ.get(self.variable)
        found = next((path for name in ([given] if given else self.names) if (path := shutil.which(name))), None)
        if found is None:
            wanted = given or ", ".join(self.names)
            raise BuildError(f"no compiler ({wanted}) is there; next: install g++, or set {self.variable}")
        return found


CC = Compiler("CC", ("cc", "gcc", "clang"))
CXX = Compiler("CXX", ("c++", "g++", "clang++"))


def native_command(output: Path) -> list[str]:
    """How the native recorder is compiled.

    Raises:
        BuildError: A compiler or Python's headers are missing.
        ImportError: There is no torch.
    """
    import torch

    python = Path(sysconfig.get_path("include"))
    if not (python / "Python.h").is_file():
        raise BuildError(f"no Python.h in {python}; next: install python3-dev, or a Python that comes with its headers")
    root = Path(torch.__file__).parent
    library = root / "lib"
    abi = int(torch._C._GLIBCXX_USE_CXX11_ABI)
    return [
        CXX.path(),
        *_CXX_FLAGS,
        f"-D_GLIBCXX_USE_CXX11_ABI={abi}",
        *(f"-I{folder}" for folder in (root / "include", root / "include/torch/csrc/api/include", python)),
        os.fspath(HERE / "native" / "module.cpp"),
        *("-o", os.fspath(output), f"-L{library}", "-ltorch_python", "-ltorch_cpu", "-ltorch", "-lc10"),
    ]


def compile_part(part: Part, command: Sequence[str], output: Path) -> Path:
    """Runs `command`, which writes `output`, and moves the library to its place in the cache.

    Raises:
        BuildError: It does not compile, or the cache cannot be written.
    """
    started = time.monotonic()
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    except subprocess.TimeoutExpired:
        raise BuildError(f"{command[0]} ran for {PATIENCE_S:.0f} s without an end; next: a quieter machine") from None
    if done.returncode or not output.is_file():
        raise BuildError(f"{command[0]} failed: {_first_error(done.stderr)}; next: another compiler, by CC or CXX")
    note = {"compiler": compiler_version(command[0]), "seconds": round(time.monotonic() - started, 1)}
    try:
        part.path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
        (part.path.parent / _NOTE).write_text(json.dumps(note), encoding="utf-8")
        os.replace(shutil.copy2(output, part.path.with_suffix(f".{os.getpid()}")), part.path)  # noqa: PTH105
    except OSError as error:
        raise BuildError(
            f"cannot write {error.filename}: {error.strerror}; next: set COMMLENS_CACHE to another folder"
        ) from error
    return part.path


def compiler_version(command: str) -> str:
    """The first line of `command --version`."""
    said = subprocess.run([command, "--version"], capture_output=True, text=True, check=False).stdout
    return said.splitlines()[0] if said else command


def _first_error(stderr: str) -> str:
    lines = stderr.strip().splitlines()
    found = next((line for line in lines if "error" in line.lower()), lines[-1] if lines else "it said nothing")
    return " ".join(found.split())[:300]


def build_native() -> Path:
    """Compiles the native recorder into the cache.

    Raises:
        BuildError: It does not compile, or what was compiled does not load.
    """
    try:
        part = native()
    except ImportError as error:
        raise BuildError("torch is not installed here; next: run this with the Python of the job") from error
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / part.library
        path = compile_part(part, native_command(output), output)
    load = "import sys; from commlens.profiler.logs import load; load(sys.argv[1])"
    tried = subprocess.run(
        [sys.executable, "-c", load, os.fspath(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    if tried.returncode:
        path.unlink()
        raise BuildError(f"what was compiled does not load: {_first_error(tried.stderr)}; next: another CXX")
    return path


def build_nccl_plugin() -> Path:
    """Compiles NCCL's profiler plugin into the cache.

    Raises:
        BuildError: It does not compile, or what was compiled is no plugin.
    """
    from commlens.profiler.nccl_plugin import compile_command, tables

    part = nccl_plugin()
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / part.library
        path = compile_part(part, compile_command(CC.path(), output), output)
    if not tables(path):
        path.unlink()
        raise BuildError("what was compiled does not load as a plugin; next: another CC")
    return path
