"""Who may ask the dashboard, what it serves, and what it says when something goes wrong."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import flask.testing
import pytest
from ui.runs_to_show import faulty, growing, healthy

from commlens.errors import CommlensError, RunNotFoundError
from commlens.ui.dashboard.address import read_query, whole, write_query
from commlens.ui.dashboard.app import _state, create_app
from commlens.ui.dashboard.runs import MOST_LISTED, Runs, _read_again
from commlens.ui.dashboard.server import guard, is_loopback, make_server


def client(folder: Path, token: str | None = None, local_only: bool = True) -> flask.testing.FlaskClient:
    return client_of(Runs([folder]), token, local_only)


def client_of(runs: Runs, token: str | None = None, local_only: bool = True) -> flask.testing.FlaskClient:
    app = create_app(runs)
    guard(app.server, token, local_only)
    return app.server.test_client()


def test_only_names_of_this_machine_are_answered(tmp_path: Path) -> None:
    asked = client(healthy(tmp_path / "run"))
    for name, code in (("localhost:8050", 200), ("127.0.0.1:1", 200), ("[::1]:80", 200), ("evil.example", 403)):
        answer = asked.get("/", headers={"Host": name})
        assert answer.status_code == code, name
    assert "localhost only" in asked.get("/", headers={"Host": "evil.example"}).get_data(as_text=True)


def test_a_token_is_needed_and_kept_by_the_browser(tmp_path: Path) -> None:
    asked = client(healthy(tmp_path / "run"), token="secret", local_only=False)
    for path in ("/", "/_dash-layout", "/rows.csv", "/assets/page.css", "/?token=wrong"):
        assert asked.get(path, headers={"Host": "gpu-17"}).status_code == 403, path
    answer = asked.get("/?token=secret", headers={"Host": "gpu-17"})
    assert answer.status_code == 302 and "secret" not in answer.headers["Location"]
    assert "HttpOnly" in answer.headers["Set-Cookie"] and "SameSite=Strict" in answer.headers["Set-Cookie"]
    assert asked.get("/", headers={"Host": "gpu-17"}).status_code == 200, "the browser brings its cookie"


def test_nothing_is_asked_of_another_place(tmp_path: Path) -> None:
    answer = client(healthy(tmp_path / "run")).get("/")
    page = answer.get_data(as_text=True)
    assert "http://" not in page.replace("http://localhost", "") and "https://" not in page
    assert "default-src 'self'" in answer.headers["Content-Security-Policy"]
    assert answer.headers["X-Frame-Options"] == "DENY"


@pytest.mark.parametrize(
    "path",
    [
        "/assets/../dashboard/server.py",
        "/assets/%2e%2e/html.py",
        "/assets/..%2f..%2ferrors.py",
        "/rows.csv?run=../../etc/passwd&rank=0&table=collectives",
        "/rows.csv?run=run&rank=0&table=../../rank.json",
        "/rows.csv?run=run&rank=-1&table=collectives",
        "/rows.csv?run=run&rank=99999999999999999999&table=collectives",
        "/rows.csv?run=run&rank=%C2%B2&table=collectives",
        "/rows.csv",
    ],
)
def test_no_file_outside_the_runs(tmp_path: Path, path: str) -> None:
    answer = client(healthy(tmp_path / "run")).get(path)
    said = answer.get_data(as_text=True)
    assert answer.status_code == 404 and said.startswith("commlens: ") and len(said.splitlines()) == 1


def test_rows_as_csv(tmp_path: Path) -> None:
    asked = client(healthy(tmp_path / "run"))
    whole_table = asked.get("/rows.csv?run=run&rank=1&table=collectives").get_data(as_text=True).splitlines()
    some = asked.get("/rows.csv?run=run&rank=1&table=collectives&column=seq&is=%3E&value=3").get_data(as_text=True)
    assert whole_table[0].startswith('"event","group"') and len(whole_table) > len(some.splitlines()) > 1
    refused = asked.get("/rows.csv?run=run&rank=1&table=collectives&column=seq&is=%3E&value=x")
    assert refused.status_code == 400 and "whole numbers" in refused.get_data(as_text=True)


def test_addresses_come_back_and_nonsense_is_left_out() -> None:
    query = {"run": "a b&c", "from": "5", "order": "host"}
    assert read_query(write_query(query)) == query
    assert read_query("?run=a&../x=1&RUN=2&" + "y=1&" * 5000)["run"] == "a"
    assert whole({"from": "1e9"}, "from", 0, 10) is None and whole({"from": "-4"}, "from", 0, 10) == 0


def test_a_run_that_has_gone_stays_as_it_was(tmp_path: Path) -> None:
    runs = Runs([growing(tmp_path / "run")])
    view = runs.view("run")
    shutil.rmtree(tmp_path / "run")
    _read_again(runs._entries["run"])
    now = runs.view("run")
    assert now.version == view.version + 1 and "not there any more" in now.problem
    assert now.examined.report == view.examined.report
    _read_again(runs._entries["run"])
    assert runs.version("run") == now.version, "said once"


def test_a_run_that_grows_is_read_again(tmp_path: Path) -> None:
    runs = Runs([growing(tmp_path / "run")])
    view = runs.view("run")
    assert view.growing
    _read_again(runs._entries["run"])
    now = runs.view("run")
    assert now.version == view.version and now.timeline is view.timeline, "nothing was written, nothing is made anew"
    source = faulty(tmp_path / "other", ranks=2, steps=6)
    shutil.copy(source / "rank-00000" / "collectives.arrows", tmp_path / "run" / "rank-00000" / "collectives.arrows")
    _read_again(runs._entries["run"])
    assert runs.version("run") == view.version + 1
    assert runs.view("run").examined.report.coverage != view.examined.report.coverage


def test_folders_of_runs_parts_and_equal_names(tmp_path: Path) -> None:
    for name in ("a", "b"):
        faulty(tmp_path / "runs" / name, ranks=2, steps=4)
    listed = Runs([tmp_path / "runs"])
    assert sorted(listed.keys) == ["a", "b"]
    parts = tmp_path / "node-1" / "run", tmp_path / "node-2" / "run"
    for part, gone in zip(parts, ("rank-00001", "rank-00000"), strict=True):
        faulty(part, ranks=2, steps=4)
        shutil.rmtree(part / gone)
    together = Runs(parts)
    assert together.keys == ("run",)
    assert together.view("run").examined.report.run.ranks_present == (0, 1)
    healthy(tmp_path / "x" / "run"), faulty(tmp_path / "y" / "run", ranks=2, steps=4)
    assert Runs([tmp_path / "x" / "run", tmp_path / "y" / "run"]).keys == ("run", "run~1")
    shutil.copytree(tmp_path / "y" / "run", tmp_path / "copy")
    assert Runs([tmp_path / "y" / "run", tmp_path / "copy"]).keys == ("run", "copy"), "the same ranks: no part of it"
    with pytest.raises(RunNotFoundError, match="no such file or folder"):
        Runs([tmp_path / "nowhere"]).view("nowhere")


def test_a_taken_port_is_one_line(tmp_path: Path) -> None:
    app = create_app(Runs([healthy(tmp_path / "run")]))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(CommlensError, match=f"cannot listen on 127.0.0.1:{port}: .*; next: another --port"):
            make_server(app, "127.0.0.1", port)


def test_loopback() -> None:
    assert all(map(is_loopback, ("localhost", "127.0.0.1", "127.8.8.8", "::1")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "10.0.0.1", "gpu-17", "localhost.evil.example")))


@pytest.mark.parametrize("given", [["nowhere"], ["--port", "70000"]])
def test_a_users_mistake_is_one_line(tmp_path: Path, given: list[str]) -> None:
    command = [sys.executable, "-m", "commlens", "dashboard", *given]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 2 and "Traceback" not in ended.stderr and ended.stdout == ""


def test_a_host_that_makes_no_sense_is_refused(tmp_path: Path) -> None:
    asked = client(healthy(tmp_path / "run"))
    for name in ("[::1", "localhost:99999999", "localhost.evil.example:8050", "0.0.0.0"):
        code = asked.get("/", headers={"Host": name}).status_code
        assert code in (400, 403), (name, code)


def test_the_rest_of_an_address_outlives_its_token(tmp_path: Path) -> None:
    asked = client(healthy(tmp_path / "run"), token="secret")
    answer = asked.get("/timeline?run=run&token=secret&from=5", headers={"Host": "localhost:9000"})
    assert answer.headers["Location"] == "/timeline?run=run&from=5"
    assert asked.get("/", headers={"Host": "localhost:9000"}).status_code == 200
    assert asked.get("/", headers={"Host": "localhost:9001"}).status_code == 403, "another dashboard's cookie"


def test_versions_grow_also_where_a_run_was_let_go(tmp_path: Path) -> None:
    for name in "abcd":
        healthy(tmp_path / name)
    runs = Runs([tmp_path])
    assert [runs.view(name).version for name in "abcd"] == [1] * 4
    assert runs._entries["a"].view is None, "three are kept"
    assert runs.view("a").version == 2, "a page that shows the first sees that it is another"


def test_what_goes_wrong_with_one_run_is_said_and_others_are_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = Runs([growing(tmp_path / "run")])
    runs.view("run")

    def broken(run: object) -> None:
        raise ZeroDivisionError

    def until(says: str) -> None:
        deadline = time.monotonic() + 60
        while says not in (problem := runs.view("run").problem) or (not says and problem):
            assert time.monotonic() < deadline, problem
            time.sleep(0.01)

    monkeypatch.setattr("commlens.ui.dashboard.runs.POLL_S", 0.01)
    stopped = threading.Event()
    following = threading.Thread(target=runs.follow, args=(stopped,))
    with monkeypatch.context() as patched:
        patched.setattr("commlens.ui.dashboard.runs.examine", broken)
        (tmp_path / "run" / "more").write_text("")
        following.start()
        until("internal error")
    until("")  # read anew, though nothing was written since
    stopped.set()
    following.join(60)
    assert not following.is_alive()


def test_a_run_that_fell_silent_is_said_to_be(tmp_path: Path) -> None:
    view = Runs([growing(tmp_path / "run")]).view("run")
    assert _state(view).startswith("recording")
    assert _state(replace(view, written_at=view.written_at - 60)).startswith("not written since")


def test_older_runs_that_are_not_listed_are_counted(tmp_path: Path) -> None:
    for number in range(MOST_LISTED + 7):
        (tmp_path / f"run-{number:03}").mkdir()
        (tmp_path / f"run-{number:03}" / "run.json").write_text("{}")
    runs = Runs([tmp_path])
    assert len(runs.keys) == MOST_LISTED and runs.unlisted == 7
    layout = client_of(runs).get("/_dash-layout").get_data(as_text=True)
    assert "7 older runs are not listed" in layout


def test_names_that_are_no_text_can_be_asked_for(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    try:
        healthy(folder)
    except OSError:
        pytest.skip("this file system takes text only")
    runs = Runs([folder])
    assert read_query(write_query({"run": runs.keys[0]}))["run"] == runs.keys[0]
    assert runs.view(runs.keys[0]).examined.report.run.ranks_present == (0, 1)
