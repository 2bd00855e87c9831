"""rank.json whose JSON is whole but not of its shape: what is damaged is not known, and a note says so."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from synthetic import training_rank, write_run

import commlens
from commlens.analyzers.health.recording import examine_health
from commlens.analyzers.stages import examine

PARAMETER = {"name": "weight", "shape": [4, 4], "dtype": "float32", "num_bytes": 64, "trainable": True}
MODEL = {
    "kind": "DDP",
    "group": "0",
    "flags": {"bucket_bytes_cap": 100},
    "accepts": ["bucket_cap_mb"],
    "bucket_bytes": [64],
    "bucket_parameters": [[0]],
    "ready_order": [0],
    "unused_bytes": [64],
    "parameters": [PARAMETER],
}
INFO = {
    "host": "a",
    "boot_id": "b",
    "cpus": 2,
    "backend": "gloo",
    "groups": [{"name": "0", "desc": "default_pg", "ranks": [0, 1], "size": 2, "workers": 2}],
    "models": [MODEL],
    "environment": {"OMP_NUM_THREADS": "1"},
    "interfaces": [{"name": "eth0", "state": "up"}],
    "links": [{"name": "eth0", "kind": "ethernet"}],
    "counters": {"interval_ms": 1000},
    "hooks": {"collectives": "ok"},
    "fix": {"applied": []},
    "overhead": {"trampoline_ns": 1000},
    "windows": [{"first_step": 1, "steps": 1, "state": "done"}],
    "paused": [{"from_step": 3, "to_step": 4}],
    "control": [{"id": 1}],
    "cuda_graphs": {"replays": 1},
    "nccl_plugin": {"calls": 1},
    "clock": {"wall_offset_ns": 1},
    "losses": None,
    "end": {"ns": 1, "how": "exit"},
    "flight_recorder": {"states": {}},
}
OTHERS: tuple[Any, ...] = (3, {"a": 1}, ["a"], [None])


def places(found: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every key, and the first entry of every list."""
    for key, value in found.items() if isinstance(found, dict) else enumerate(found[:1]):
        yield (*above, key)
        if isinstance(value, dict | list):
            yield from places(value, (*above, key))


def replaced(place: tuple[Any, ...], value: Any) -> dict[str, Any]:
    info: Any = json.loads(json.dumps(INFO))
    inner = info
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    return dict(info)


@pytest.mark.parametrize("name", INFO)
def test_whatever_is_damaged_the_run_is_analysed(tmp_path: Path, name: str) -> None:
    path = write_run(tmp_path / "run", {rank: training_rank(6, **INFO) for rank in range(2)})
    file = path / "rank-00001" / "rank.json"
    whole = json.loads(file.read_text())
    for place in (each for each in places(INFO) if each[0] == name):
        for other in OTHERS:
            file.write_text(json.dumps(whole | replaced(place, other)))
            examined = examine(commlens.open_run(path))
            assert examined.report.run.ranks_present == (0, 1)
            examine_health(examined, 0)


def test_what_is_damaged_is_said(tmp_path: Path) -> None:
    models: list[Any] = [MODEL, "x"]
    path = write_run(tmp_path / "run", {rank: training_rank(6, **INFO) for rank in range(2)})
    file = path / "rank-00001" / "rank.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"models": models, "groups": [*INFO["groups"], 3]}))  # type: ignore[misc]
    run = commlens.open_run(path)
    assert run.notes == [f"{file} is damaged: not used of it: groups, models"]
    assert run.ranks[1].info["models"] is None
    assert run.ranks[1].info["groups"] == INFO["groups"]
    assert run.ranks[0].info["models"] == [MODEL]
