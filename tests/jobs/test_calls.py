"""Every way to call a collective is recorded as exactly what it was, on both ranks, and the ranks match.

Each case has a process group of its own, whose `group_desc` names the case; the job itself writes down,
beside each call, the rows that it must leave.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from job_runs import Launch, execute

from commlens.trace import Rank, Run, open_run
from commlens.trace.ops import message_bytes
from commlens.trace.schema import POINT_TO_POINT

pytestmark = pytest.mark.job

TWO_RANKS = '''
import json, pathlib, pickle, sys, threading, warnings
import torch
import torch.distributed as dist
import torch.distributed._functional_collectives as functional
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.distributed_c10d import _coalescing_manager
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard

dist.init_process_group("gloo")
rank = dist.get_rank()
other = 1 - rank
functional.all_reduce(torch.ones(1), "sum", dist.group.WORLD).tolist()  # the first one imports for seconds
expected = {}


def ones(size=1000, dtype=torch.float32):
    return torch.ones(size, dtype=dtype)


def row(op, in_bytes, out_bytes, **more):
    return {"op": op, "in_bytes": in_bytes, "out_bytes": out_bytes, "peer": None, "dtype": "float32",
            "timing": "host", "thread": 0, **more}


def case(name, call, *rows, ranks=(0, 1)):
    group = dist.new_group(list(ranks), group_desc=name)
    if rank in ranks:
        try:
            call(group)
        except RuntimeError as error:
            if "does not support" not in str(error):
                raise
            return  # Gloo of an older torch
        expected[name] = [
            {"seq": seq, "group": group.group_name, "group_size": len(ranks), **each}
            for seq, each in enumerate(rows)
        ]


def reduction(name, call, *rows):
    """The call as it stands, and with async_op=True and a wait later."""
    case(name, lambda group: call(group=group), *rows)
    unseen = [{**each, "timing": "wait" if each["op"] == "reduce_scatter" else "host"} for each in rows]
    case(f"{name} async", lambda group: call(group=group, async_op=True).wait(), *unseen)


KB4, KB8 = 4000, 8000
two = [ones(), ones()]
all_to_all = dist.all_to_all_single
reduction("all_reduce", lambda **o: dist.all_reduce(ones(), **o), row("all_reduce", KB4, KB4))
reduction("broadcast", lambda **o: dist.broadcast(ones(), 1, **o), row("broadcast", KB4, KB4, peer=1))
reduction("all_gather", lambda **o: dist.all_gather(two, ones(), **o), row("all_gather", KB4, KB8))
reduction("all_gather_into_tensor", lambda **o: dist.all_gather_into_tensor(ones(2000), ones(), **o),
          row("all_gather", KB4, KB8))
reduction("reduce_scatter", lambda **o: dist.reduce_scatter(ones(), two, **o), row("reduce_scatter", KB8, KB4))
reduction("reduce_scatter_tensor", lambda **o: dist.reduce_scatter_tensor(ones(), ones(2000), **o),
          row("reduce_scatter", KB8, KB4))
reduction("reduce", lambda **o: dist.reduce(ones(), 1, **o), row("reduce", KB4, KB4, peer=1))
reduction("gather", lambda **o: dist.gather(ones(), two if rank == 0 else None, 0, **o),
          row("gather", KB4, KB8 if rank == 0 else 0, peer=0))
reduction("scatter", lambda **o: dist.scatter(ones(), two if rank == 1 else None, 1, **o),
          row("scatter", KB8 if rank == 1 else 0, KB4, peer=1))
reduction("all_to_all", lambda **o: dist.all_to_all(list(ones(2000).split(1000)), two, **o),
          row("all_to_all", KB8, KB8))
reduction("all_to_all_single", lambda **o: all_to_all(ones(2000), ones(2000), **o), row("all_to_all", KB8, KB8))
splits = [[100, 200], [300, 400]]
sends, receives = splits[rank], [splits[0][rank], splits[1][rank]]
reduction("all_to_all_single uneven",
          lambda **o: all_to_all(ones(sum(receives)), ones(sum(sends)), receives, sends, **o),
          row("all_to_all", 4 * sum(sends), 4 * sum(receives)))
reduction("barrier", dist.barrier, row("barrier", 0, 0, dtype=None))
case("monitored_barrier", lambda group: dist.monitored_barrier(group), row("barrier", 0, 0, dtype=None))
for name in ("float64", "float16", "bfloat16", "int64", "int32", "int8", "uint8"):
    dtype = getattr(torch, name)
    case(name, lambda group: dist.broadcast(ones(100, dtype), 0, group=group),
         row("broadcast", 100 * dtype.itemsize, 100 * dtype.itemsize, peer=0, dtype=name))
case("nothing", lambda group: dist.all_reduce(ones(0), group=group), row("all_reduce", 0, 0))
reduction("sparse", lambda **o: dist.all_reduce(ones(10).to_sparse(), **o), row("all_reduce", 120, 120))


def send_then_receive(group):
    for each in (0, 1):  # twice: messages are numbered by peer and direction
        if rank == 0:
            dist.send(ones(), 1, group=group)
            dist.recv(ones(2000), 1, group=group)
        else:
            dist.recv(ones(), 0, group=group)
            dist.send(ones(2000), 0, group=group)


out = {"timing": "wait", "peer": other}
mine = [row("send", KB4, 0, **out), row("recv", 0, KB8, **out)]
theirs = [row("recv", 0, KB4, **out), row("send", KB8, 0, **out)]
pair = mine if rank == 0 else theirs
case("send and recv", send_then_receive,
     *({**each, "seq": seq} for seq in (0, 1) for each in pair))


def both_ways(group):
    works = [dist.isend(ones(), other, group=group), dist.irecv(ones(), other, group=group)]
    for work in works:
        work.wait()


def batch(group):
    ops = [dist.P2POp(dist.isend, ones(), other, group), dist.P2POp(dist.irecv, ones(), other, group)]
    for work in dist.batch_isend_irecv(ops):
        work.wait()


there_and_back = [row("send", KB4, 0, seq=0, **out), row("recv", 0, KB4, seq=0, **out)]
case("isend and irecv", both_ways, *there_and_back)
case("batch_isend_irecv", batch, *there_and_back)
case("recv from any", lambda group: dist.send(ones(), 1, group=group) if rank == 0 else dist.recv(ones(), group=group),
     row("send", KB4, 0, **out) if rank == 0 else row("recv", 0, KB4, timing="wait"))

text = len(pickle.dumps("commlens"))
case("all_gather_object", lambda group: dist.all_gather_object([None, None], "commlens", group=group),
     row("all_gather", 8, 16, dtype="int64"), row("all_gather", text, 2 * text, dtype="uint8"))
case("broadcast_object_list",
     lambda group: dist.broadcast_object_list(["commlens", "commlens"], 1, group=group),
     row("broadcast", 16, 16, dtype="int64", peer=1), row("broadcast", 2 * text, 2 * text, dtype="uint8", peer=1))

case("functional all_reduce", lambda group: functional.all_reduce(ones(), "sum", group).sum(),
     row("all_reduce", KB4, KB4))
case("functional wait_tensor",
     lambda group: functional.wait_tensor(functional.all_reduce(ones(), "sum", group)), row("all_reduce", KB4, KB4))
case("functional later", lambda group: [t.sum() for t in [functional.all_reduce(ones(), "sum", group)
                                                          for _ in range(3)]], *[row("all_reduce", KB4, KB4)] * 3)
case("functional all_gather", lambda group: functional.all_gather_tensor(ones(), 0, group).sum(),
     row("all_gather", KB4, KB8))
case("functional reduce_scatter",
     lambda group: functional.reduce_scatter_tensor(ones(2000), "sum", 0, group).sum(),
     row("reduce_scatter", KB8, KB4, timing="wait"))
case("functional all_to_all", lambda group: functional.all_to_all_single(ones(2000), None, None, group).sum(),
     row("all_to_all", KB8, KB8))
case("functional broadcast", lambda group: functional.broadcast(ones(), 1, group).sum(),
     row("broadcast", KB4, KB4, peer=1))
case("functional coalesced",
     lambda group: [t.sum() for t in functional.all_reduce_coalesced([ones(), ones(500)], "sum", group)],
     row("all_reduce", 6000, 6000))


def redistribute(placement, to):
    def call(group):
        mesh = DeviceMesh.from_group(group, "cpu")
        tensor = DTensor.from_local(ones(2000).view(40, 50), mesh, [placement], run_check=False)
        tensor.redistribute(placements=[to]).to_local().sum()

    return call


case("DTensor gathers", redistribute(Shard(0), Replicate()), row("all_gather", KB8, 2 * KB8))
case("DTensor sums", redistribute(Partial(), Replicate()), row("all_reduce", KB8, KB8))
case("DTensor scatters", redistribute(Partial(), Shard(0)), row("reduce_scatter", KB8, KB4, timing="wait"))

case("coalesced", lambda group: dist.all_reduce_coalesced([ones(), ones(500)], group=group),
     row("all_reduce", 6000, 6000))


def coalescing_manager(group):
    with _coalescing_manager(group=group, async_ops=True) as together:
        for _ in range(3):
            dist.all_reduce(ones(), group=group)
    together.wait()


case("coalescing manager", coalescing_manager, row("all_reduce", 3 * KB4, 3 * KB4))


def in_thread(group):
    thread = threading.Thread(target=lambda: [dist.all_reduce(ones(), group=group) for _ in range(2)])
    thread.start()
    thread.join()


case("second thread", in_thread, *[row("all_reduce", KB4, KB4, thread=1)] * 2)


def refused(group):
    try:
        dist.all_gather([ones(), ones(10)], ones(), group=group)
    except RuntimeError:
        dist.all_reduce(ones(), group=group)


case("refused", refused, row("all_reduce", KB4, KB4, seq=1))  # the refused call never began


def without_memory(group):
    with warnings.catch_warnings(), FakeTensorMode():
        warnings.simplefilter("error")
        dist.all_reduce(ones(), group=group, async_op=True)


case("fake", without_memory, row("all_reduce", KB4, KB4))
case("alone", lambda group: dist.all_reduce(ones(), group=group), row("all_reduce", KB4, KB4), ranks=(1,))
pathlib.Path(sys.argv[1], f"{rank}.json").write_text(json.dumps(expected))
dist.destroy_process_group()
'''

# Ranks 1 and 2 of 3 in a group of their own, and a default group that is made anew.
THREE_RANKS = """
import sys
import torch
import torch.distributed as dist

dist.init_process_group("gloo")
rank = dist.get_rank()
x = torch.ones(1000)
group = dist.new_group([1, 2], group_desc="upper")
if rank > 0:
    dist.broadcast(x, 2, group=group)
    dist.reduce(x, 1, group=group)
    dist.gather(x, [x, x.clone()] if rank == 2 else None, 2, group=group)
    dist.send(x, 2, group=group) if rank == 1 else dist.recv(x, 1, group=group)
for _ in range(2):
    dist.all_reduce(x)
dist.destroy_process_group()
# Not through torchrun's store: there the old group's addresses can still be found.
dist.init_process_group("gloo", init_method=f"file://{sys.argv[1]}/store", rank=rank, world_size=3)
for _ in range(3):
    dist.barrier()
dist.destroy_process_group()
"""

EXACT = ("group", "group_size", "seq", "op", "dtype", "in_bytes", "out_bytes", "peer", "timing", "thread")


def recorded(rank: Rank) -> list[dict[str, Any]]:
    """Rows in the order of issue."""
    rows: list[dict[str, Any]] = rank.table("collectives").to_pylist()
    return rows


@pytest.fixture(scope="module", params=["dispatcher", "native"])
def source(request: pytest.FixtureRequest) -> str:
    """Which recorder the job has, as `source` calls it."""
    return str(request.param)


@pytest.fixture(scope="module")
def two_ranks(
    tmp_path_factory: pytest.TempPathFactory, source: str, request: pytest.FixtureRequest
) -> tuple[Run, Path]:
    """The run of `TWO_RANKS`, and the folder of the rows it must have."""
    env = request.getfixturevalue("built") if source == "native" else {}
    folder = tmp_path_factory.mktemp("calls")
    script = folder / "calls.py"
    script.write_text(TWO_RANKS)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    job = execute([*torchrun, str(script), str(folder)], {"COMMLENS": str(folder / "runs"), **env}, folder, 240)
    assert job.rc == 0, job.stderr
    assert job.warnings == []
    return open_run(folder / "runs"), folder


def test_every_call_leaves_exactly_its_rows(two_ranks: tuple[Run, Path], source: str) -> None:
    run, folder = two_ranks
    for number, rank in run.ranks.items():
        expected = json.loads((folder / f"{number}.json").read_text())
        if source == "native":  # it sees the end of what has no future, too
            for row in (row for rows in expected.values() for row in rows if row["op"] == "reduce_scatter"):
                row["timing"] = "host"
        rows: dict[str, list[dict[str, Any]]] = {name: [] for name in expected}
        for row in recorded(rank):
            if row["group_desc"] != "default_pg":
                rows[row["group_desc"]].append({name: row[name] for name in EXACT})
        assert rows == expected


def test_times_are_in_order_and_the_wait_is_seen(two_ranks: tuple[Run, Path], source: str) -> None:
    run, _ = two_ranks
    for rank in run.ranks.values():
        for row in recorded(rank):
            if row["group_desc"] == "fake":  # its Work brings a wait of its own
                continue
            end, wait_end = row["completed_ns"], row["waited_ns"] + row["blocked_ns"]
            assert row["issued_ns"] <= row["started_ns"] <= end, row
            assert row["issued_ns"] <= row["waited_ns"] <= wait_end, row
            assert end <= wait_end, row
            if row["timing"] == "wait":
                assert end == wait_end, row
            assert row["step"] == 0 and row["bucket"] is None and row["source"] == source, row


def test_collectives_match_across_ranks(two_ranks: tuple[Run, Path]) -> None:
    run, _ = two_ranks
    keys = [
        {
            (row["group"], row["seq"], row["op"], _size(row))
            for row in recorded(rank)
            if row["op"] not in POINT_TO_POINT and row["group_size"] == 2
        }
        for rank in run.ranks.values()
    ]
    assert keys[0] == keys[1]


def _size(row: dict[str, Any]) -> int | None:
    """Bytes of the message, the same on every rank but for an uneven all-to-all."""
    if row["group_desc"].startswith("all_to_all_single uneven"):
        return None
    return message_bytes(row["op"], row["in_bytes"], row["out_bytes"], row["group_size"])


def test_messages_match_across_ranks(two_ranks: tuple[Run, Path]) -> None:
    run, _ = two_ranks
    for sender, receiver in ((0, 1), (1, 0)):
        sent = _messages(run.ranks[sender], "send", "in_bytes", receiver)
        assert sent == _messages(run.ranks[receiver], "recv", "out_bytes", sender)
        assert len(sent) == 4


def _messages(rank: Rank, op: str, size: str, peer: int) -> list[tuple[str, int, int]]:
    rows = [row for row in recorded(rank) if row["op"] == op and row["group_desc"] != "recv from any"]
    return sorted((row["group"], row["seq"], row[size]) for row in rows if row["peer"] == peer)


def test_peers_are_global_and_a_name_used_again_is_a_new_group(launch: Launch, tmp_path: Path) -> None:
    job = launch(THREE_RANKS, 3, str(tmp_path), env={"COMMLENS": str(tmp_path / "runs")})
    assert job.rc == 0, job.stderr
    run = open_run(tmp_path / "runs")
    upper = {
        number: [(row["op"], row["peer"], row["seq"]) for row in recorded(rank) if row["group_desc"] == "upper"]
        for number, rank in run.ranks.items()
    }
    collectives = [("broadcast", 2, 0), ("reduce", 1, 1), ("gather", 2, 2)]
    assert upper == {0: [], 1: [*collectives, ("send", 2, 0)], 2: [*collectives, ("recv", 1, 0)]}
    for rank in run.ranks.values():
        default = [row for row in recorded(rank) if row["group_desc"] == "default_pg"]
        names = list(dict.fromkeys(row["group"] for row in default))
        assert len(names) == 2 and names[1] == f"{names[0]}#2"
        assert [(row["op"], row["seq"]) for row in default] == [
            *(("all_reduce", seq) for seq in range(2)), *(("barrier", seq) for seq in range(3))
        ]  # fmt: skip
        groups = {group["name"]: group["ranks"] for group in rank.info["groups"]}
        assert groups[names[0]] == groups[names[1]] == [0, 1, 2]
