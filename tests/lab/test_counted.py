"""Counters on emulated hosts: a sampler a host, and interfaces that count what is known to have been sent."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from lab.hosts import INTERFACE, available, lab_hosts

from commlens.trace import Rank, open_run

BYTES, TIMES = 2_000_000, 20
JOB = f"""
import time
import torch, torch.distributed as dist
from commlens.profiler import live

def wait_for(samples):
    deadline = time.monotonic() + 60
    while live.recorder.counters.described()["counters"].get("samples", 0) < samples:
        assert time.monotonic() < deadline
        time.sleep(0.005)

dist.init_process_group("gloo")
dist.all_reduce(torch.ones(1))
wait_for(1)
dist.barrier()
tensor = torch.ones({BYTES // 4})
for _ in range({TIMES}):
    dist.all_reduce(tensor)
dist.barrier()
dist.destroy_process_group()
"""


def moved(rank: Rank, device: str, counter: str) -> int:
    """How much a total grew from its first to its last row."""
    rows = [row for row in rank.table("counters").to_pylist() if (row["device"], row["counter"]) == (device, counter)]
    return int(rows[-1]["value"] - rows[0]["value"]) if rows else 0


@pytest.mark.job
@pytest.mark.parametrize("rate", [None, 400.0])
def test_an_interface_counts_what_was_sent_over_it(tmp_path: Path, rate: float | None) -> None:
    if reason := available():
        pytest.skip(reason)
    script = tmp_path / "job.py"
    script.write_text(JOB)
    with lab_hosts([rate, rate]) as lab:
        lab.launch(script, env={"COMMLENS": str(tmp_path / "out")})
    run = open_run(tmp_path / "out")
    assert sorted(run.ranks) == [0, 1]
    for rank in run.ranks.values():
        assert "sampled_by" not in rank.info["counters"]  # each host has a sampler of its own
        links = {link["name"]: link for link in rank.info["links"]}
        assert set(links) >= {"lo", INTERFACE, "tcp"}
        assert "eth0" not in links  # of the machine, whose /sys/class/net a host may see
        assert links[INTERFACE]["peak_bytes_per_s"] is None
        assert links[INTERFACE]["driver"] == "veth"
        for counter in ("tx_bytes", "rx_bytes"):
            # Payload once; then headers (66 bytes a segment of up to 1448, fewer where the kernel sends larger ones),
            # acknowledgements of what comes the other way, and Gloo's own messages.
            assert BYTES * TIMES <= moved(rank, INTERFACE, counter) <= 1.05 * BYTES * TIMES
        assert moved(rank, "lo", "tx_bytes") < 0.01 * BYTES * TIMES
    for one, other in ((0, 1), (1, 0)):
        sent, received = moved(run.ranks[one], INTERFACE, "tx_bytes"), moved(run.ranks[other], INTERFACE, "rx_bytes")
        assert np.isclose(sent, received, rtol=0.01)


@pytest.mark.job
def test_ranks_of_one_host_have_one_sampler(tmp_path: Path) -> None:
    if reason := available():
        pytest.skip(reason)
    script = tmp_path / "job.py"
    script.write_text(JOB)
    with lab_hosts([None, None]) as lab:
        lab.launch(script, ranks_per_host=2, env={"COMMLENS": str(tmp_path / "out")})
    run = open_run(tmp_path / "out")
    sampling = [number for number, rank in run.ranks.items() if "sampled_by" not in rank.info["counters"]]
    assert sorted(number // 2 for number in sampling) == [0, 1]
