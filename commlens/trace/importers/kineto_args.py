"""The arguments of a profiler's events, as far as they matter."""

from __future__ import annotations

from typing import Annotated, Any, Final, TypeVar

import msgspec

from commlens.trace.importers.event_pieces import Event


class CommArgs(msgspec.Struct, gc=False):
    """What the profiler says of a collective, on its kernel or on the host's call."""

    name: str = msgspec.field(default="", name="Collective name")
    dtype: str = ""
    in_nelems: int = msgspec.field(default=-1, name="In msg nelems")
    out_nelems: int = msgspec.field(default=-1, name="Out msg nelems")
    group_size: int = msgspec.field(default=-1, name="Group size")
    group: str = msgspec.field(default="", name="Process Group Name")
    desc: str = msgspec.field(default="", name="Process Group Description")
    ranks: Any = msgspec.field(default=None, name="Process Group Ranks")
    first_rank: int = msgspec.field(default=-1, name="Global rank start")
    stride: int = msgspec.field(default=-1, name="Global rank stride")
    seq: int = msgspec.field(default=-1, name="Seq")
    source: int = msgspec.field(default=-1, name="Src Rank")
    destination: int = msgspec.field(default=-1, name="Dst Rank")
    dims: Any = msgspec.field(default=None, name="Input Dims")
    types: Any = msgspec.field(default=None, name="Input type")
    inputs: Any = msgspec.field(default=None, name="Concrete Inputs")


_Int = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]


class LaunchArgs(msgspec.Struct, gc=False):
    """What ties a launch to what it launched."""

    correlation: _Int = -1


class DeviceArgs(LaunchArgs, gc=False):  # ROCm's launches have a stream too, of another kind
    """Where a kernel ran, and how large its grid was."""

    device: _Int = 0
    stream: _Int = 0
    grid: Annotated[list[_Int], msgspec.Meta(max_length=3)] = []


_SomeArgs = TypeVar("_SomeArgs", LaunchArgs, DeviceArgs)


_comm_args: Final = msgspec.json.Decoder(CommArgs, strict=False)
_device_args: Final = msgspec.json.Decoder(list[DeviceArgs], strict=False)
_launch_args: Final = msgspec.json.Decoder(list[LaunchArgs], strict=False)
_BAD: Final = (msgspec.DecodeError, RecursionError, UnicodeError)


def comm_args(event: Event) -> CommArgs:
    """What an event says of a collective; nothing where it cannot be read."""
    try:
        return _comm_args.decode(event.args)
    except _BAD:
        return CommArgs()


def device_args(events: list[Event]) -> list[DeviceArgs]:
    """Of kernels and copies."""
    return _all_args(events, _device_args, DeviceArgs())


def launch_args(events: list[Event]) -> list[LaunchArgs]:
    """Of launches."""
    return _all_args(events, _launch_args, LaunchArgs())


def _all_args(
    events: list[Event], decoder: msgspec.json.Decoder[list[_SomeArgs]], unknown: _SomeArgs
) -> list[_SomeArgs]:
    """The arguments of all events, decoded at once; of those that cannot be, `unknown`."""
    try:
        return decoder.decode(b"[%b]" % b",".join([event.args for event in events]))
    except _BAD:
        return [_args(event, decoder, unknown) for event in events]


def _args(event: Event, decoder: msgspec.json.Decoder[list[_SomeArgs]], unknown: _SomeArgs) -> _SomeArgs:
    try:
        return decoder.decode(b"[%b]" % event.args)[0]
    except _BAD:
        return unknown
