"""File systems that fsspec reaches: few requests, many at once, none without an end, one line where one fails."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

from commlens.errors import CommlensError, RunNotFoundError, TraceError, WriteError

_FIRST_ANSWER_S: Final = 60.0  # for the first listing, with what libraries try again by themselves
_PUT_AT_ONCE: Final = 16

# Whose exceptions are those of a file system. What else is raised is a mistake of ours.
_LIBRARIES: Final = frozenset(
    {"aiobotocore", "aiohttp", "adlfs", "asyncio", "azure", "botocore", "fsspec", "gcsfs", "google", "requests", "s3fs"}
)
_UNREACHABLE: Final = ("Connect", "Timeout", "Endpoint", "Disconnected", "SSL", "gaierror", "DNS", "HTTPClient")
_REFUSED: Final = frozenset(
    {"ExpiredToken", "InvalidAccessKeyId", "InvalidToken", "SignatureDoesNotMatch", "TokenRefreshRequired"}
)


class Object(NamedTuple):
    """What a listing says of a file, or a folder.

    Attributes:
        name: below the folder that was listed.
        tag: another one where the content changed; "" for folders.
        modified_ns: 0 where not known.
    """

    path: Path
    name: str
    size: int
    tag: str
    modified_ns: int
    is_folder: bool


def listed(folder: Path) -> list[Object]:
    """What is in a folder, by name; what an earlier listing said is not believed.

    Raises:
        FileNotFoundError: There is nothing.
        NotADirectoryError: It is a file.
        TraceError: It cannot be listed.
    """
    fs, root = _at(folder)
    with reading(folder):
        fs.invalidate_cache(root)
        found = _within_time(fs, root)
    if len(found) == 1 and found[0]["name"].strip("/") == root.strip("/") and found[0]["type"] != "directory":
        raise NotADirectoryError(str(folder))
    return sorted((each for info in found if (each := _object(folder, root, info)).name), key=lambda each: each.name)


def tree(folder: Path) -> list[Object]:
    """Every file below a folder, by name.

    Raises:
        TraceError: It cannot be listed.
    """
    fs, root = _at(folder)
    with reading(folder):
        fs.invalidate_cache(root)
        try:
            found = fs.find(root, detail=True)
        except FileNotFoundError:
            return []
    return sorted((_object(folder, root, info) for info in found.values()), key=lambda each: each.name)


def look(path: Path) -> Object | None:
    """What there is at a path now; None where nothing is.

    Raises:
        TraceError: It cannot be told.
    """
    fs, root = _at(path)
    with reading(path):
        fs.invalidate_cache(fs._parent(root))
        try:
            return _object(path, root, fs.info(root))
        except FileNotFoundError:
            return None


def fetch(spans: Sequence[tuple[Path, int, int | None]]) -> list[bytes | Exception]:
    """Bytes of files of one file system, (path, from, to): a request each, side by side; an error where one fails.

    A file to whose end is read (`to` None) comes in one request, and so is of one time.
    """
    if not spans:
        return []
    fs, _ = _at(spans[0][0])
    with reading(spans[0][0]):
        answers = fs.cat_ranges(
            [_at(path)[1] for path, _, _ in spans],
            [begin for _, begin, _ in spans],
            [end for _, _, end in spans],
            on_error="return",
        )
    return [_answer(answer, path) for answer, (path, _, _) in zip(answers, spans, strict=True)]


def put(files: Sequence[tuple[Path, Path]]) -> None:
    """Files of this machine, (from, to), side by side; each is there whole or not at all.

    Raises:
        WriteError: One cannot be written.
    """
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(_PUT_AT_ONCE) as threads:
        for _ in threads.map(lambda each: _put(*each), files):
            pass


def _put(source: Path, path: Path) -> None:
    fs, root = _at(path)
    with writing(path):
        fs.put_file(str(source), root)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """What a file system raises is a TraceError; but not that there is nothing."""
    with _told(path, _unread):
        yield


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """What a file system raises is a WriteError."""
    with _told(path, _unwritten):
        yield


@contextmanager
def _told(path: Path, tell: Callable[[Exception, Path], CommlensError]) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if tell is _unread and isinstance(error, FileNotFoundError) and _code(error) != "NoSuchBucket":
            raise
        if not _is_theirs(error):
            raise
        raise tell(error, path) from error


def _is_theirs(error: Exception) -> bool:
    return isinstance(error, OSError) or type(error).__module__.partition(".")[0] in _LIBRARIES


def _answer(answer: bytes | Exception, path: Path) -> bytes | Exception:
    if isinstance(answer, Exception) and not isinstance(answer, FileNotFoundError):
        return _unread(answer, path)
    return answer


def _unread(error: Exception, path: Path) -> CommlensError:
    kind = RunNotFoundError if _code(error) == "NoSuchBucket" else TraceError
    return kind(_sentence(error, path, "read"))


def _unwritten(error: Exception, path: Path) -> CommlensError:
    return WriteError(_sentence(error, path, "write"))


def _sentence(error: Exception, path: Path, verb: str) -> str:
    """What, where and what next. Nothing of the error's text, which may hold addresses with signatures."""
    code, is_s3 = _code(error), str(path).startswith("s3")
    why, cannot = code or type(error).__name__, f"cannot {verb} {path}"
    another = ", and AWS_ENDPOINT_URL where it is not Amazon's" if is_s3 else ""
    if code == "NoSuchBucket":
        return f"{cannot}: there is no such bucket; check its name{another}"
    if "Credential" in why or "Profile" in why:
        needed = "AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY," if is_s3 else "those of the storage"
        return f"{cannot}: no credentials ({why}); set {needed} in the environment"
    if why in _REFUSED:
        return f"{cannot}: the credentials are refused ({why}); renew those in the environment"
    if isinstance(error, PermissionError):
        return f"{cannot}: access is denied ({why}); ask for the right to list and {verb} it"
    if isinstance(error, ConnectionError | TimeoutError) or any(word in why for word in _UNREACHABLE):
        return f"{cannot}: its server does not answer ({why}); check the network{another}"
    return f"{cannot}: the storage says {why}; try again, or copy the run to this machine"


def _code(error: BaseException | None) -> str:
    """The storage's word for what went wrong, such as "AccessDenied"; "" where it has none."""
    while error is not None:
        response = getattr(error, "response", None)
        if isinstance(response, Mapping):
            code = str((response.get("Error") or {}).get("Code", ""))
            return code if code.replace("-", "").isalnum() and len(code) < 40 else ""
        error = error.__cause__
    return ""


def _at(path: Path) -> tuple[Any, str]:
    """The file system, and what it calls the path."""
    remote: Any = path
    return remote.fs, str(remote.path).rstrip("/") or "/"


def _within_time(fs: Any, root: str) -> list[dict[str, Any]]:
    if not getattr(fs, "async_impl", False):
        found: list[dict[str, Any]] = fs.ls(root, detail=True)
        return found
    from fsspec.asyn import sync

    answered: list[dict[str, Any]] = sync(fs.loop, fs._ls, root, timeout=_FIRST_ANSWER_S, detail=True)
    return answered


def _object(folder: Path, root: str, info: Mapping[str, Any]) -> Object:
    full = str(info["name"]).strip("/")
    name = full.removeprefix(root.strip("/")).strip("/")
    is_folder = info["type"] == "directory"
    tag = "" if is_folder else next((str(info[key]) for key in _TAGS if info.get(key)), "")
    size = int(info.get("size") or 0)
    return Object(folder / name if name else folder, name, size, f"{tag}/{size}", _modified_ns(info), is_folder)


_TAGS: Final = ("ETag", "etag", "generation", "md5Hash", "LastModified", "mtime", "modified", "created")


def _modified_ns(info: Mapping[str, Any]) -> int:
    for key in ("LastModified", "mtime", "modified", "updated", "created"):
        value = info.get(key)
        if isinstance(value, datetime):
            return int(value.timestamp() * 1e9)
        if isinstance(value, int | float):
            return int(value * 1e9)
    return 0
