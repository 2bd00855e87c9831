"""The one vocabulary of changes: what `whatif` can simulate, `verify` can try and COMMLENS_FIX can apply.

    NAME=VALUE[,NAME=VALUE...]        ddp.bucket_cap_mb=50,ddp.comm_hook=bf16

A change is named here once, with the values it takes, what it means and what it risks.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from commlens.errors import UsageError
from commlens.trace import change_values as values
from commlens.trace.change_values import Value

# What a change risks.
#   exact           the same training, but for the order in which numbers are added
#   lossy           the gradients or buffers differ: accuracy has to be looked at
#   needs a person  it is changed outside the job, or it changes what the job computes
#   research only   no framework offers it
EXACT, LOSSY, NEEDS_PERSON, RESEARCH = RISKS = ("exact", "lossy", "needs a person", "research only")

ENV: Final = "env."
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OF_LIBRARIES = ("NCCL_", "RCCL_", "GLOO_", "UCX_", "FI_", "TORCH_NCCL_")  # how bytes move, not which
# Variables are set when `init_process_group` is called. These are launchers' to set, or were read before.
_LAUNCHERS = frozenset({"RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "PATH", "HOME"})
_LAUNCHERS_PREFIXES = ("MASTER_", "TORCHELASTIC_", "COMMLENS", "SLURM_", "OMPI_")
_EARLY = frozenset({"CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "CUDA_DEVICE_MAX_CONNECTIONS"})
_EARLY_PREFIXES = ("OMP_", "MKL_", "KMP_", "GOMP_", "LD_", "PYTHON", "MALLOC_")

_IN_CODE = "it is changed in the job's code"
_NO_KNOB = "it is no setting of a job"
_NOT_OVER_GLOO = "torch's hook for it hangs or fails over Gloo"


@dataclass(frozen=True)
class Kind:
    """One row of the vocabulary.

    Attributes:
        name: as it is written; "env." stands for every environment variable.
        takes: what a value looks like, for people.
        read: makes a value of its text; raises ValueError.
        meaning: one line.
        risk: one of `RISKS`.
        obstacle: why COMMLENS_FIX cannot apply it, None where it can.
    """

    name: str
    takes: str
    read: Callable[[str], Value]
    meaning: str
    risk: str
    obstacle: str | None = None


_FLAG = ("0 or 1", values.flag)
_HOOKS = "none, bf16, fp16, powersgd:rank=R or quantize"
_SCALED = "x and a factor, or"

KINDS: Final = (
    Kind("ddp.bucket_cap_mb", "MiB above 0", values.above_zero, "size of DDP's gradient buckets", EXACT),
    Kind("ddp.bucket_cap_mb_list", "MiB+MiB+...", values.sizes, "size of each of DDP's buckets in turn", EXACT),
    Kind("ddp.last_bucket_cap", *_FLAG, "DDP's small bucket is the last one sent, not the first", EXACT),
    Kind("ddp.gradient_as_bucket_view", *_FLAG, "gradients lie in the buckets: no copies", EXACT),
    Kind("ddp.static_graph", *_FLAG, "the same parameters are used in every step", EXACT),
    Kind("ddp.find_unused_parameters", *_FLAG, "DDP searches each step for parameters without gradient", EXACT),
    Kind("ddp.broadcast_buffers", *_FLAG, "rank 0's buffers are sent to all before each forward", LOSSY),
    Kind("ddp.comm_hook", _HOOKS, values.hook, "how DDP sends its gradients", LOSSY),
    Kind(
        "ddp.no_sync_every",
        "a count above 0",
        values.count,
        "gradients are reduced in every k-th micro-batch only",
        NEEDS_PERSON,
        f"{_IN_CODE}, with model.no_sync()",
    ),
    Kind(
        "wire.dtype",
        "float32, float16 or bfloat16",
        values.dtype,
        "data type of what is sent",
        LOSSY,
        f"{_IN_CODE}; DDP's gradients with ddp.comm_hook",
    ),
    Kind(ENV, "NAME=VALUE", values.word, "an environment variable of every rank", NEEDS_PERSON),
    Kind("link.bandwidth", f"{_SCALED} GB/s", values.scaled("GB/s"), "a faster or slower link", NEEDS_PERSON, _NO_KNOB),
    Kind("link.latency", f"{_SCALED} us", values.scaled("us"), "a link with other latency", NEEDS_PERSON, _NO_KNOB),
    Kind("straggler.remove", "1", values.yes, "no rank is slower than the others' median", NEEDS_PERSON, _NO_KNOB),
    Kind("imbalance.remove", "1", values.yes, "all ranks compute for equally long", NEEDS_PERSON, _NO_KNOB),
    Kind("overlap", "none or perfect", values.one_of("none", "perfect"), "how much is hidden", RESEARCH, _NO_KNOB),
    Kind("world_size", "a count above 0", values.count, "ranks of the job", NEEDS_PERSON, "it is the launcher's"),
    Kind(
        "fsdp.reshard_after_forward",
        *_FLAG,
        "parameters are given up after forward and gathered again for backward",
        EXACT,
        f"{_IN_CODE}, where fully_shard is called",
    ),
    Kind(
        "fsdp.prefetch",
        "a count",
        values.count_or_none,
        "units whose parameters are gathered ahead of their use",
        EXACT,
        f"{_IN_CODE}, with set_modules_to_forward_prefetch",
    ),
    Kind("fsdp.unit_merge", "a count above 0", values.count, "units gathered as one", EXACT, _IN_CODE),
    Kind("fsdp.shard_size", "a count above 0", values.count, "ranks that share one copy (HSDP)", EXACT, _IN_CODE),
    Kind("fsdp.reduce_dtype", "a data type", values.dtype, "data type of reduced gradients", LOSSY, _IN_CODE),
)
_BY_NAME = {kind.name: kind for kind in KINDS}


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
        return _BY_NAME[ENV if self.name.startswith(ENV) else self.name]

    @property
    def risk(self) -> str:
        """One of `RISKS`."""
        uncompressed = self.name == "ddp.comm_hook" and self.value == values.Hook("none")
        by_library = self.name.startswith(ENV) and self.name.removeprefix(ENV).startswith(_OF_LIBRARIES)
        return EXACT if uncompressed or by_library else self.kind.risk

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
    kind = _BY_NAME.get(ENV if name.startswith(ENV) else name)
    if kind is None or name == ENV:
        raise UsageError(f"there is no change {name or text!r}; there are: {', '.join(_BY_NAME)}")
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
        is_change = "=" in piece or piece.strip() in _BY_NAME
        if pieces and pieces[-1].lstrip().startswith(ENV) and not is_change:
            pieces[-1] += f",{piece}"
        else:
            pieces.append(piece)
    return pieces


def joined(changes: tuple[Change, ...]) -> str:
    """The text that `parse_all` reads."""
    return ",".join(map(str, changes))


def obstacle(change: Change, backend: str | None = None) -> str | None:
    """Why COMMLENS_FIX cannot apply a change, None where it can.

    Args:
        backend: of the process group that reduces gradients, None where it is not known.
    """
    if change.name.startswith(ENV):
        return _variable_obstacle(change.name.removeprefix(ENV))
    if isinstance(change.value, values.Hook) and change.value.name in ("powersgd", "quantize"):
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
