"""Workers of a real cluster that read a run from a real S3 server by themselves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from made import RANKS, packed, report_of, write_hosts
from object_server import Bucket, Server

from commlens import analyze, open_run
from commlens.cluster.connect import connected

Reports = dict[str, str]


@pytest.mark.parametrize("kind", ["folders", "packs"])
def test_the_report_is_that_of_one_process(tmp_path: Path, bucket: Bucket, server: Server, kind: str) -> None:
    local = write_hosts(tmp_path / "run")
    local = packed(local, tmp_path / "packed") if kind == "packs" else local
    there = bucket.put(local)
    alone = report_of(there)
    server.asked.clear()
    with connected(2, None) as engine:
        run = open_run(there)
        opened = len(server.asked)
        report = analyze(run, engine)
        read = len(server.asked) - opened
    assert report.run.ranks_present == tuple(range(RANKS))
    assert json.loads(json.dumps(report.to_dict())) == json.loads(json.dumps(analyze(open_run(there)).to_dict()))
    assert alone == report_of(local)
    assert read >= RANKS  # the workers asked for the tables
