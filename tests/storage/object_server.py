"""A real S3 server (moto's) on a free port of this machine, whose answers a test can refuse, delay or count."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SECRET = "the-secret-of-this-test"

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


@dataclass
class Server:
    """The server.

    Attributes:
        asked: every request since the test began: method, path, and the range that was asked for.
        denied: beginnings of paths that are answered as S3 answers where a policy denies access.
        code: S3's word for why.
        before: called with the method and path of each request before it is answered.
    """

    application: Application
    address: str = ""
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    denied: tuple[str, ...] = ()
    code: str = "AccessDenied"
    before: Callable[[str, str], object] | None = None

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        self.asked.append((method, path, environ.get("HTTP_RANGE", "")))
        if self.before is not None:
            self.before(method, path)
        if path.startswith(self.denied or ("//",)):
            body = f'<?xml version="1.0"?><Error><Code>{self.code}</Code><Message>no</Message></Error>'.encode()
            start("403 Forbidden", [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
            return [b"" if method == "HEAD" else body]
        return self.application(environ, start)

    def gets(self, *endings: str) -> list[str]:
        """Paths of objects that were asked for, those with such an ending."""
        return [path for method, path, _ in self.asked if method == "GET" and path.endswith(endings or ("",))]


@dataclass(frozen=True)
class Bucket:
    """A bucket of its own, by way of boto3 and not of what is tested."""

    client: Any
    name: str
    server: Server

    def put(self, folder: Path, under: str = "run") -> str:
        """Copy a folder into it; its address."""
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                key = f"{under}/{path.relative_to(folder).as_posix()}"
                self.client.put_object(Bucket=self.name, Key=key, Body=path.read_bytes())
        self.server.asked.clear()
        return f"s3://{self.name}/{under}"

    def replace(self, key: str, data: bytes) -> None:
        self.client.put_object(Bucket=self.name, Key=key, Body=data)

    def keys(self) -> list[str]:
        found = self.client.list_objects_v2(Bucket=self.name).get("Contents", [])
        return [each["Key"] for each in found]

    def read(self, key: str) -> bytes:
        data: bytes = self.client.get_object(Bucket=self.name, Key=key)["Body"].read()
        return data


def forget_connections() -> None:
    """File systems are kept by their options, which do not tell the environment."""
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
