"""The vocabulary of changes: what is read, what is refused, and what a fix can apply."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commlens.errors import UsageError
from commlens.trace.change_kinds import KINDS, RISKS
from commlens.trace.changes import Change, Hook, Scale, applicable, joined, obstacle, parse, parse_all


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("ddp.bucket_cap_mb=50", 50.0),
        ("ddp.bucket_cap_mb= 0.5 ", 0.5),
        ("ddp.bucket_cap_mb_list=1+2.5+25", (1.0, 2.5, 25.0)),
        ("ddp.last_bucket_cap=1", True),
        ("ddp.static_graph=false", False),
        ("ddp.comm_hook=bf16", Hook("bf16")),
        ("ddp.comm_hook=powersgd:rank=4", Hook("powersgd", 4)),
        ("ddp.comm_hook=powersgd", Hook("powersgd", 1)),
        ("ddp.no_sync_every=4", 4),
        ("wire.dtype=bf16", "bfloat16"),
        ("env.NCCL_ALGO=", ""),
        ("env.A=b=c", "b=c"),
        ("link.bandwidth=x2", Scale(2.0, True)),
        ("link.bandwidth=12.5GB/s", Scale(12.5, False)),
        ("link.latency=30us", Scale(30.0, False)),
        ("straggler.remove", True),
        ("overlap=perfect", "perfect"),
        ("world_size=16", 16),
        ("fsdp.prefetch=0", 0),
    ],
)
def test_values(text: str, value: object) -> None:
    change = parse(text)
    assert (change.name, change.value) == (text.partition("=")[0], value)
    assert type(change.value) is type(value)
    assert parse(str(change)) == change


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "there is no change ''"),
        ("bucket_cap_mb=50", "there is no change 'bucket_cap_mb'"),
        ("ddp.bucket_cap_mb", "takes MiB above 0"),
        ("ddp.bucket_cap_mb=0", "takes MiB above 0, not '0'"),
        ("ddp.bucket_cap_mb=-1", "takes MiB above 0"),
        ("ddp.bucket_cap_mb=inf", "takes MiB above 0"),
        ("ddp.bucket_cap_mb=1e999", "takes MiB above 0"),
        ("ddp.bucket_cap_mb_list=1++2", "takes MiB"),
        ("ddp.static_graph=2", "takes 0 or 1"),
        ("ddp.comm_hook=bf16:rank=1", "powersgd:rank=R"),
        ("ddp.comm_hook=powersgd:rank=0", "powersgd:rank=R"),
        ("ddp.no_sync_every=1.5", "a count above 0"),
        ("world_size=²", "a count above 0"),
        ("env.=1", "there is no change"),
        ("env.A B=1", "no name of an environment variable"),
        ("straggler.remove=0", "takes 1"),
        ("overlap=some", "none or perfect"),
        ("link.latency=x0", "a factor"),
    ],
)
def test_what_makes_no_sense_is_one_line(text: str, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(text)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_several_are_joined_by_commas() -> None:
    changes = parse_all("ddp.bucket_cap_mb=50, env.NCCL_IB_HCA=mlx5_0,mlx5_1 ,straggler.remove,env.B=2")
    assert [str(change) for change in changes] == [
        "ddp.bucket_cap_mb=50",
        "env.NCCL_IB_HCA=mlx5_0,mlx5_1",
        "straggler.remove=1",
        "env.B=2",
    ]
    assert parse_all(joined(changes)) == changes


@pytest.mark.parametrize("text", ["ddp.bucket_cap_mb=50,", "env.A=1,dpp.bucket_cap_mb=3", "world_size=2,world_size=4"])
def test_a_slip_among_several_is_not_swallowed(text: str) -> None:
    with pytest.raises(UsageError):
        parse_all(text)


@given(st.floats(1e-3, 1e6), st.integers(1, 10**6), st.booleans())
def test_what_is_written_is_read_again(size: float, count: int, on: bool) -> None:
    kept = float(f"{size:.12g}")
    changes = (
        Change("ddp.bucket_cap_mb", kept),
        Change("world_size", count),
        Change("ddp.static_graph", on),
        Change("link.latency", Scale(kept, on)),
        Change("ddp.comm_hook", Hook("powersgd", count)),
    )
    assert parse_all(joined(changes)) == changes


def test_the_table_is_whole() -> None:
    assert len({kind.name for kind in KINDS}) == len(KINDS)
    assert all(kind.risk in RISKS and kind.meaning and "\n" not in kind.meaning for kind in KINDS)


@pytest.mark.parametrize(
    ("text", "risk"),
    [
        ("ddp.bucket_cap_mb=1", "exact"),
        ("ddp.comm_hook=none", "exact"),
        ("ddp.comm_hook=fp16", "lossy"),
        ("env.NCCL_ALGO=Tree", "exact"),
        ("env.NCCL_PROTO=LL128", "needs a person"),  # may corrupt data
        ("env.NCCL_PROTO=Simple,LL128", "needs a person"),
        ("env.NCCL_PROTO=^LL128", "exact"),
        ("env.SEED=3", "needs a person"),
        ("ddp.no_sync_every=2", "needs a person"),
        ("overlap=perfect", "research only"),
    ],
)
def test_risks(text: str, risk: str) -> None:
    assert parse(text).risk == risk


@pytest.mark.parametrize(
    ("text", "backend", "why"),
    [
        ("ddp.bucket_cap_mb=1", "gloo", None),
        ("ddp.comm_hook=bf16", "gloo", None),
        ("ddp.comm_hook=powersgd", None, None),
        ("ddp.comm_hook=powersgd", "cpu:gloo,cuda:nccl", None),
        ("ddp.comm_hook=powersgd", "gloo", "over Gloo"),
        ("ddp.comm_hook=quantize", "gloo", "over Gloo"),
        ("ddp.no_sync_every=2", None, "no_sync()"),
        ("wire.dtype=fp16", None, "ddp.comm_hook"),
        ("link.bandwidth=x2", None, "no setting"),
        ("fsdp.prefetch=2", None, None),
        ("fsdp.unit_merge=2", None, "code"),
        ("env.NCCL_ALGO=Tree", None, None),
        ("env.RANK=1", None, "launcher"),
        ("env.MASTER_PORT=1", None, "launcher"),
        ("env.COMMLENS=0", None, "launcher"),
        ("env.OMP_NUM_THREADS=1", None, "when the process starts"),
    ],
)
def test_what_a_fix_can_apply(text: str, backend: str | None, why: str | None) -> None:
    change = parse(text)
    assert applicable(change, backend) is (why is None)
    assert (why or "") in (obstacle(change, backend) or "")


def test_variables() -> None:
    texts = ("env.NCCL_ALGO=Tree", "ddp.last_bucket_cap=1", "ddp.static_graph=1")
    assert [parse(text).variable for text in texts] == ["NCCL_ALGO", "DDP_SET_LAST_BUCKET_CAP", None]
