"""From what was typed to a path: of this machine a plain `Path`, elsewhere one of universal_pathlib."""

from __future__ import annotations

import logging
import os
from pathlib import Path, PurePath
from typing import Any, Final, cast

from commlens.errors import UsageError

PathLike = str | os.PathLike[str]

_LOCAL: Final = ("file", "local")
_LIBRARIES: Final = {"gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs", "abfss": "adlfs", "adl": "adlfs"}
_S3: Final = ("s3", "s3a")
_TALKATIVE: Final = ("adlfs", "aiobotocore", "azure", "botocore", "fsspec", "gcsfs", "s3fs")
_SILENT: Final = logging.NullHandler()
_CONNECTIONS: Final = 64  # at a time: botocore's own 10 make thousands of ranks wait


def place(given: PathLike) -> Path:
    """The path that was given; "s3://bucket/run" and the like become paths of fsspec.

    Raises:
        UsageError: its library is not installed, nothing is called so, or it holds what is secret.
        TraceError: its storage cannot be used.
    """
    if not isinstance(given, str) or "://" not in given:
        return cast(Path, given) if is_remote(given) else Path(given)
    scheme, _, rest = given.partition("://")
    if scheme in _LOCAL:
        return Path(rest)
    return _remote(_without_secrets(scheme, rest), scheme)


def is_remote(path: object) -> bool:
    """Whether fsspec reaches it, and not the operating system."""
    return not isinstance(path, str | PurePath) and hasattr(path, "fs")


def canonical(path: Path) -> Path:
    """The same for the same place, whatever links lead there."""
    return path if is_remote(path) else path.resolve()


def _without_secrets(scheme: str, rest: str) -> str:
    """The address, which is printed in reports and errors.

    Raises:
        UsageError: it would print a password or a signature.
    """
    authority, slash, path = rest.partition("/")
    user, _, host = authority.rpartition("@")
    if ":" in user or "?" in rest:
        shown = f"{scheme}://{host or authority}{slash}{path}".partition("?")[0]
        raise UsageError(
            f"the address of {shown} holds a password or a query; leave it out: credentials come from the environment"
        )
    return f"{scheme}://{rest}"


def _remote(address: str, scheme: str) -> Path:
    try:
        from upath import UPath

        path = cast(Path, UPath(address, **(_s3_options() if scheme in _S3 else {})))
        _connect(path)
    except ImportError as error:
        raise UsageError(f"{address} needs {_library(scheme, error)}") from error
    except ValueError as error:
        raise UsageError(f"{address}: no storage is called {scheme}://; s3://, gs:// and abfs:// are some") from error
    return path


def _connect(path: Path) -> None:
    """Its library is imported now, not in the middle of work; what it logs of its attempts is not for users.

    Raises:
        UsageError: the environment does not say what it needs.
        TraceError: it has no credentials, or cannot reach its server.
    """
    from commlens.trace.storage.remote import reading

    for name in _TALKATIVE:
        logging.getLogger(name).addHandler(_SILENT)  # else Python prints what nobody has a handler for
    try:
        with reading(path):
            _ = cast(Any, path).fs
    except ValueError as error:
        raise UsageError(
            f"{path} takes more than the environment says; set what the storage's own tools need, an account or a key"
        ) from error


def _library(scheme: str, error: ImportError) -> str:
    if scheme in _S3 or error.name in ("upath", "fsspec"):
        return "s3fs and universal_pathlib; next: pip install 'commlens[storage]'"
    library = _LIBRARIES.get(scheme) or error.name
    if library is None:
        return f"a library that is not installed; fsspec's documentation names it for {scheme}://"
    return f"{library}; next: pip install {library}"


def _s3_options() -> dict[str, Any]:
    """What fsspec's configuration and AWS_MAX_ATTEMPTS leave open: s3fs repeats by itself what botocore repeated."""
    from fsspec.config import conf

    ours: dict[str, Any] = {"max_pool_connections": _CONNECTIONS}
    if not os.environ.get("AWS_MAX_ATTEMPTS"):
        ours["retries"] = {"total_max_attempts": 2}
    return {"config_kwargs": ours | conf.get("s3", {}).get("config_kwargs", {})}
