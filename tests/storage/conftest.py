"""The server of object_server.py, for all tests of a process, and a bucket for each."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from object_server import SECRET, Bucket, Server, forget_connections


@pytest.fixture(scope="session")
def moto() -> Iterator[Server]:
    pytest.importorskip("s3fs", reason="needs the extra storage")
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Quiet(WSGIRequestHandler):
        protocol_version = "HTTP/1.1"  # connections are kept, as S3 does

        def log(self, type: str, message: str, *args: Any) -> None: ...

    server = Server(DomainDispatcherApplication(create_backend_app))
    http = make_server("127.0.0.1", 0, server, threaded=True, request_handler=Quiet)
    server.address = f"http://127.0.0.1:{http.port}"
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    yield server
    http.shutdown()
    thread.join()


@pytest.fixture
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIATHEKEYOFTHISTEST")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.delenv("AWS_PROFILE", raising=False)


@pytest.fixture
def server(moto: Server, credentials: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto.address)
    forget_connections()
    moto.asked, moto.denied, moto.code, moto.before = [], (), "AccessDenied", None
    yield moto
    moto.denied, moto.before = (), None


@pytest.fixture
def bucket(server: Server) -> Bucket:
    import boto3

    client = boto3.client("s3", endpoint_url=server.address, region_name="us-east-1")
    name = f"bucket-{uuid.uuid4().hex[:8]}"
    client.create_bucket(Bucket=name)
    return Bucket(client, name, server)
