"""The one vocabulary of changes: what `whatif` can simulate, `verify` can try and COMMLENS_FIX can apply.

    NAME=VALUE[,NAME=VALUE...]        ddp.bucket_cap_mb=50,ddp.comm_hook=bf16

`change_kinds` is the table of names.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from commlens.errors import UsageError
from commlens.trace import change_values as values
from commlens.trace.change_kinds import BY_NAME, ENV, EXACT, KINDS, Kind
from commlens.trace.change_values import Hook, Scale, Value

__all__ = ["KINDS", "Change", "Hook", "Scale", "Value", "applicable", "joined", "obstacle", "parse", "parse_all"]

_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OF_LIBRARIES = ("NCCL_", "RCCL_", "GLOO_", "UCX_", "FI_", "TORCH_NCCL_")  # how bytes move, not which
# Variables are set when `init_process_group` is called. These are launchers' to set, or were read before.
_LAUNCHERS = frozenset({"RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "PATH", "HOME"})
_LAUNCHERS_PREFIXES = ("MASTER_", "TORCHELASTIC_", "COMMLENS", "SLURM_", "OMPI_")
_EARLY = frozenset({"CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "CUDA_DEVICE_MAX_CONNECTIONS"})
_EARLY_PREFIXES = ("OMP_", "MKL_", "KMP_", "GOMP_", "LD_", "PYTHON", "MALLOC_")

_NOT_OVER_GLOO = "torch's hook for it hangs or fails over Gloo"


@dataclass(frozen=True)
class Change:
    """One change.

    Attributes:
        name: of a `Kind`, or "env." and the variable's name.
        value: as its kind reads it.
    """

    name: str
    value: Value

    def __str__(self) -> str:
        return f"{self.name}={values.text_of(self.value)}"

    @property
    def kind(self) -> Kind:
        """The row of the vocabulary."""
        return BY_NAME[ENV if self.name.startswith(ENV) else self.name]

    @property
    def risk(self) -> str:
        """One of `RISKS`."""
        uncompressed = self.name == "ddp.comm_hook" and self.value == Hook("none")
        by_library = self.name.startswith(ENV) and self.name.removeprefix(ENV).startswith(_OF_LIBRARIES)
        return EXACT if uncompressed or (by_library and not self._may_corrupt) else self.kind.risk

    @property
    def _may_corrupt(self) -> bool:
        """NCCL's LL128, where it is not NCCL that chooses it: wrong bytes on hardware that does not support it."""
        value = str(self.value).upper()
        return self.name == f"{ENV}NCCL_PROTO" and "LL128" in value and not value.startswith("^")

    @property
    def variable(self) -> str | None:
        """The environment variable it sets, None where it sets none."""
        if self.name == "ddp.last_bucket_cap":
            return "DDP_SET_LAST_BUCKET_CAP"
        return self.name.removeprefix(ENV) if self.name.startswith(ENV) else None


def parse(text: str) -> Change:
    """One change from "NAME=VALUE"; names that take only 1 need no value.

    Raises:
        UsageError: There is no such change, or it does not take that value.
    """
    name, equals, value = (part.strip() for part in text.partition("="))
    kind = BY_NAME.get(ENV if name.startswith(ENV) else name)
    if kind is None or name == ENV:
        raise UsageError(f"there is no change {name or text!r}; there are: {', '.join(BY_NAME)}")
    if kind.name == ENV and not _ENV_NAME.fullmatch(name.removeprefix(ENV)):
        raise UsageError(f"{name.removeprefix(ENV)!r} is no name of an environment variable; write env.NAME=VALUE")
    try:
        return Change(name, kind.read(value if equals else _unsaid(kind)))
    except ValueError:
        raise UsageError(f"{name} takes {kind.takes}, not {value!r}") from None


def _unsaid(kind: Kind) -> str:
    if kind.read is values.yes:
        return "1"
    raise ValueError


def parse_all(text: str) -> tuple[Change, ...]:
    """Changes joined by commas, each name once; a comma in the value of a variable belongs to it.

    Raises:
        UsageError: As `parse`; or there is none, or one is named twice.
    """
    changes = tuple(parse(piece) for piece in _pieces(text))
    names = [change.name for change in changes]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UsageError(f"{twice} is changed twice in {text!r}; say it once")
    return changes


def _pieces(text: str) -> list[str]:
    pieces: list[str] = []
    for piece in text.split(","):
        is_change = "=" in piece or piece.strip() in BY_NAME
        if pieces and pieces[-1].lstrip().startswith(ENV) and not is_change:
            pieces[-1] += f",{piece}"
        else:
            pieces.append(piece)
    return pieces


def joined(changes: Iterable[Change]) -> str:
    """The text that `parse_all` reads."""
    return ",".join(map(str, changes))


def obstacle(change: Change, backend: str | None = None) -> str | None:
    """Why COMMLENS_FIX cannot apply a change, None where it can.

    Args:
        backend: of the process group that reduces gradients, None where it is not known.
    """
    if change.name.startswith(ENV):
        return _variable_obstacle(change.name.removeprefix(ENV))
    if isinstance(change.value, Hook) and change.value.name in ("powersgd", "quantize"):
        over_gloo = backend is not None and "gloo" in backend and "nccl" not in backend
        return _NOT_OVER_GLOO if over_gloo else None
    return change.kind.obstacle


def applicable(change: Change, backend: str | None = None) -> bool:
    """Whether COMMLENS_FIX can apply a change, as far as can be told without the installed torch."""
    return obstacle(change, backend) is None


def _variable_obstacle(name: str) -> str | None:
    if name in _LAUNCHERS or name.startswith(_LAUNCHERS_PREFIXES):
        return "the launcher sets it for each rank"
    if name in _EARLY or name.startswith(_EARLY_PREFIXES):
        return "it is read when the process starts; set it in front of the launcher"
    return None
