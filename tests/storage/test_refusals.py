"""Storage that refuses: one line that says what, where and what next, soon, and nothing secret in it."""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from made import packed, write_hosts
from object_server import SECRET, Bucket, Server, forget_connections

from commlens.errors import CommlensError, RunNotFoundError, TraceError, UsageError, WriteError
from commlens.trace import open_run
from commlens.trace.storage import remote
from commlens.trace.storage.places import place


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_hosts(tmp_path_factory.mktemp("refused") / "run", ranks=4)


def line(work: Callable[[], object], kind: type[CommlensError] = TraceError) -> str:
    """What is said where something is refused."""
    with pytest.raises(kind) as caught:
        work()
    said = str(caught.value)
    assert "\n" not in said
    assert SECRET not in said and "AKIA" not in said and "Signature=" not in said and "http" not in said
    return said


def test_a_bucket_that_denies_access(run: Path, bucket: Bucket, server: Server) -> None:
    there = bucket.put(run)
    server.denied = (f"/{bucket.name}",)
    said = line(lambda: open_run(there))
    assert said == f"cannot read {there}: access is denied (AccessDenied); ask for the right to list and read it"


@pytest.mark.parametrize("file", ["rank.json", "collectives.arrows"])
def test_one_file_that_denies_access(run: Path, bucket: Bucket, server: Server, file: str) -> None:
    there = bucket.put(run)
    server.denied = (f"/{bucket.name}/run/rank-00002/{file}",)
    said = line(lambda: open_run(there).ranks[2].table("collectives"))
    assert said.startswith(f"cannot read {there}/rank-00002/{file}: access is denied (AccessDenied)")


def test_a_pack_that_denies_access(tmp_path: Path, run: Path, bucket: Bucket, server: Server) -> None:
    there = bucket.put(packed(run, tmp_path / "packs"))
    server.denied = (f"/{bucket.name}/run/node-00002.zip",)
    assert f"cannot read {there}/node-00002.zip: access is denied" in line(lambda: open_run(there))


def test_a_run_among_others_that_denies_access_is_passed_over(run: Path, bucket: Bucket, server: Server) -> None:
    bucket.put(run, "runs/one")
    bucket.put(run, "runs/two")
    server.denied = (f"/{bucket.name}/runs/two/run.json",)
    found = open_run(f"s3://{bucket.name}/runs")
    assert str(found.path) == f"s3://{bucket.name}/runs/one"


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("s3://no-such-bucket-here/run", "there is no such bucket; check its name"),
        ("s3://{bucket}/absent", "no such folder: s3://{bucket}/absent; check the path"),
        ("s3://{bucket}/run/run.json", "s3://{bucket}/run/run.json is a file, not a run"),
        ("s3://{bucket}/run/rank-00001", "s3://{bucket}/run/rank-00001 is one rank of a run; give the folder above it"),
        ("s3://{bucket}/traces", "s3://{bucket}/traces holds no run; give a folder with run.json in it"),
    ],
)
def test_what_is_not_there(run: Path, bucket: Bucket, address: str, says: str) -> None:
    bucket.put(run)
    bucket.replace("traces/rank0.json.gz", b"of torch.profiler")
    said = line(lambda: open_run(address.format(bucket=bucket.name)), RunNotFoundError)
    assert says.format(bucket=bucket.name) in said


def test_no_credentials(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    forget_connections()
    said = line(lambda: open_run(f"s3://{bucket.name}/run"))
    assert "no credentials (NoCredentialsError); set AWS_PROFILE, or AWS_ACCESS_KEY_ID and" in said


def test_a_profile_that_is_not_there(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    forget_connections()
    assert "no credentials (ProfileNotFound)" in line(lambda: open_run(f"s3://{bucket.name}/run"))


def test_credentials_that_are_refused(bucket: Bucket, server: Server) -> None:
    server.denied, server.code = (f"/{bucket.name}",), "InvalidAccessKeyId"
    said = line(lambda: open_run(f"s3://{bucket.name}/run"))
    assert "the credentials are refused (InvalidAccessKeyId); renew those in the environment" in said


def test_a_server_that_is_not_there(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{taken.getsockname()[1]}")
        forget_connections()
        said = line(lambda: open_run(f"s3://{bucket.name}/run"))
    assert f"cannot read s3://{bucket.name}/run: its server does not answer (EndpointConnectionError)" in said


@pytest.fixture
def silent(server: Server) -> Iterator[None]:
    over = threading.Event()
    server.before = lambda method, path: over.wait()
    yield
    server.before = None
    over.set()


def test_a_server_that_never_answers(bucket: Bucket, silent: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "_FIRST_ANSWER_S", 0.3)
    said = line(lambda: open_run(f"s3://{bucket.name}/run"))
    assert "its server does not answer (FSTimeoutError); check the network, and AWS_ENDPOINT_URL" in said


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("s3://AKIAX:{secret}@bucket/run", "s3://bucket/run"),
        ("https://bucket.example/run?X-Amz-Signature={secret}&x=1", "https://bucket.example/run"),
        ("sftp://me:{secret}@host/run", "sftp://host/run"),
    ],
)
def test_secrets_in_an_address_are_refused_and_not_shown(address: str, shown: str) -> None:
    with pytest.raises(UsageError) as caught:
        open_run(address.format(secret=SECRET))
    assert SECRET not in str(caught.value) and "AKIA" not in str(caught.value)
    assert f"the address of {shown} holds a password or a query; leave it out" in str(caught.value)


@pytest.mark.parametrize(
    ("scheme", "missing", "next_"),
    [
        ("s3", "upath", "pip install 'commlens[storage]'"),
        ("s3", "s3fs", "pip install 'commlens[storage]'"),
        ("gs", "gcsfs", "pip install gcsfs"),
        ("abfs", "adlfs", "pip install adlfs"),
    ],
)
def test_a_library_that_is_missing(scheme: str, missing: str, next_: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("upath")
    known = sys.modules["fsspec.registry"]._registry
    monkeypatch.delitem(known, scheme, raising=False)
    monkeypatch.setitem(sys.modules, missing, None)
    said = line(lambda: open_run(f"{scheme}://bucket/run"), UsageError)
    assert said.startswith(f"{scheme}://bucket/run needs ") and said.endswith(next_)


def test_a_storage_that_nobody_knows() -> None:
    pytest.importorskip("upath")
    assert "no storage is called nonsense://" in line(lambda: open_run("nonsense://bucket/run"), UsageError)


def test_what_may_not_be_written(tmp_path: Path, bucket: Bucket, server: Server) -> None:
    file = tmp_path / "report.txt"
    file.write_text("report")
    server.denied = (f"/{bucket.name}/out",)
    target = place(f"s3://{bucket.name}/out/report.txt")
    said = line(lambda: remote.put([(file, target)]), WriteError)
    assert said.startswith(f"cannot write {target}: access is denied (AccessDenied)")
    absent = place("s3://no-such-bucket-here/report.txt")
    assert "there is no such bucket" in line(lambda: remote.put([(file, absent)]), WriteError)
