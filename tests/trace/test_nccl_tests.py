"""Reading logs of nccl-tests: a hand-written one, its variants, and real ones with their numbers parsed elsewhere."""

import csv
from pathlib import Path

import pytest

from commlens.errors import TraceError
from commlens.trace.calibration import INTER, INTRA, CalibrationEntry, MadeWith, read_calibration
from commlens.trace.importers.nccl_tests_log import Row, parse_log

REAL = Path(__file__).parents[2].parent / "shared" / "traces" / "nccl-tests-h100-nvswitch"

LOG = """\
# nccl-tests version 2.18.3 nccl-headers=22902 nccl-library=22902
# Collective test starting: all_reduce_perf
# nThread 1 nGpus 4 minBytes 8 maxBytes 16777216 step: 2(factor) warmup iters: 5 iters: 50 agg iters: 1 validation: 1
#
# Using devices
#  Rank  0 Group  0 Pid   1275 on 8899f5769284 device  0 [0000:41:00] NVIDIA H100 80GB HBM3
#  Rank  1 Group  0 Pid   1275 on 8899f5769284 device  1 [0000:44:00] NVIDIA H100 80GB HBM3
#  Rank  2 Group  0 Pid   1275 on 8899f5769284 device  2 [0000:86:00] NVIDIA H100 80GB HBM3
#  Rank  3 Group  0 Pid   1275 on 8899f5769284 device  3 [0000:87:00] NVIDIA H100 80GB HBM3
8899f5769284:1275:1275 [0] NCCL INFO cudaDriverVersion 13010
#
#                                                              out-of-place                       in-place
#       size         count      type   redop    root     time   algbw   busbw  #wrong     time   algbw   busbw  #wrong
#        (B)    (elements)                               (us)  (GB/s)  (GB/s)             (us)  (GB/s)  (GB/s)
           0             0     float     sum      -1     0.42    0.00    0.00       0     0.46    0.00    0.00       0
           8             2     float     sum      -1    22.72    0.00    0.00       0    22.97    0.00    0.00       0
8899f5769284:1275:1275 [0] NCCL INFO a line between the rows
    16777216       4194304     float     sum      -1   102.10  164.32  246.47       0    99.19  169.14  253.70       0
  8589934592    2147483648     float     sum      -1  35300.1  243.34  365.01     N/A  35290.3  243.41  365.11     N/A
# Out of bounds values : 0 OK
# Avg bus bandwidth    : 100.1
#
# Collective test concluded: all_reduce_perf
"""
HEADER = next(line for line in LOG.splitlines() if "#       size" in line)
ROW = next(line + "\n" for line in LOG.splitlines() if line.startswith("    16777216"))
EQUAL = ROW.replace("246.47", "164.32").replace("253.70", "169.14")  # busbw as algbw


def entries(folder: Path, text: str, name: str = "log.txt") -> tuple[CalibrationEntry, ...]:
    path = folder / name
    path.write_text(text)
    return read_calibration(path).entries


def test_a_whole_log(tmp_path: Path) -> None:
    (tmp_path / "log.txt").write_text(LOG)
    found = read_calibration(tmp_path / "log.txt")
    assert found.source == "nccl-tests: log.txt"
    assert found.made_with == MadeWith("", "nccl 2.29.2")
    sizes = (8, 16777216, 8589934592)
    assert found.entries == (CalibrationEntry("all_reduce", (), 4, INTRA, sizes, (22.97, 99.19, 35290.3)),)


def test_rows_have_both_halves() -> None:
    rows = [row for stretch in parse_log(LOG) for row in stretch.rows]
    assert rows[2] == Row(16777216, 102.10, 164.32, 246.47, 99.19, 169.14, 253.70)
    assert [row.bytes for row in rows] == [0, 8, 16777216, 8589934592]


@pytest.mark.parametrize(
    ("program", "op", "time"),
    [
        ("all_gather", "all_gather", 102.10),
        ("reduce_scatter", "reduce_scatter", 102.10),
        ("alltoall", "all_to_all", 102.10),
        ("sendrecv", "send", 102.10),
        ("reduce", "reduce", 99.19),  # torch reduces and broadcasts in place
        ("broadcast", "broadcast", 99.19),
        ("all_gather_perf_mpi", "all_gather", 102.10),
    ],
)
def test_the_operation_and_the_half_that_torch_uses(tmp_path: Path, program: str, op: str, time: float) -> None:
    (entry,) = entries(tmp_path, LOG.replace("all_reduce_perf", f"{program.removesuffix('_perf_mpi')}_perf"))
    assert (entry.op, entry.time_us[1]) == (op, time)
    assert entry.group_size == (2 if op == "send" else 4)


def test_the_file_is_named_after_the_operation_where_the_log_is_silent(tmp_path: Path) -> None:
    silent = LOG.replace("all_reduce_perf", "the test")
    assert entries(tmp_path, silent, "ib_reduce_scatter-2.log")[0].op == "reduce_scatter"
    assert entries(tmp_path, silent, "all_reduce_reg0.txt")[0].op == "all_reduce"
    with pytest.raises(TraceError, match="name the file after it"):
        entries(tmp_path, silent, "preduce.txt")


def test_what_torch_does_not_have_is_refused(tmp_path: Path) -> None:
    for program in ("hypercube", "alltoallv"):
        with pytest.raises(TraceError, match=f"measures {program}"):
            entries(tmp_path, LOG.replace("all_reduce_perf", f"{program}_perf"))


def test_several_hosts_and_an_unknown_one(tmp_path: Path) -> None:
    across = LOG.replace("on 8899f5769284 device  3", "on another-host device  0")
    assert entries(tmp_path, across)[0].scope == INTER
    silent = "".join(line for line in LOG.splitlines(keepends=True) if "Rank " not in line)
    assert entries(tmp_path, silent)[0].scope is None
    unsaid = "".join(line for line in silent.splitlines(keepends=True) if "nThread" not in line)
    (entry,) = entries(tmp_path, unsaid)  # a line of NCCL's own does not part the rows
    assert (entry.group_size, len(entry.bytes)) == (4, 3)


def test_the_group_size_follows_from_the_bandwidths(tmp_path: Path) -> None:
    """Logs get cut down to their rows: busbw over algbw is 2(n-1)/n."""
    (entry,) = entries(tmp_path, ROW, "all_reduce.txt")
    assert entry.group_size == 4
    text = ROW + "# Avg bus bandwidth : 1\n### GPUS=2\n" + EQUAL
    assert [each.group_size for each in entries(tmp_path, text, "all_reduce.txt")] == [4, 2]
    assert [each.group_size for each in entries(tmp_path, LOG + "### GPUS=2\n" + EQUAL)] == [4, 2]


def test_where_nothing_tells_the_group_size(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="how many ranks"):  # broadcast's factor is 1 for any number of them
        entries(tmp_path, EQUAL, "broadcast.txt")
    assert entries(tmp_path, "# nThread 2 nGpus 4 minBytes 8\n" + EQUAL, "broadcast.txt")[0].group_size == 8


def test_logs_one_after_another(tmp_path: Path) -> None:
    second = LOG.replace("all_reduce_perf", "all_gather_perf").replace("246.47", "123.24").replace("365.01", "182.51")
    found = entries(tmp_path, LOG + second + LOG.replace("99.19", "101.19"))
    assert [(each.op, each.group_size) for each in found] == [("all_reduce", 4), ("all_gather", 4)]
    assert found[0].time_us[1] == pytest.approx(100.19)  # measured twice: the median
    assert found[1].time_us[1] == 102.10


def test_each_test_lists_its_own_ranks(tmp_path: Path) -> None:
    first = "# all_reduce_perf\n# nThread 1 nGpus 2\n#  Rank  0 Pid 1 on a device  0\n#  Rank  1 Pid 2 on b device  0\n"
    second = "# broadcast_perf\n# nThread 1 nGpus 1\n#  Rank  0 Pid 3 on a device  0\n"
    found = entries(tmp_path, first + EQUAL + second + EQUAL)
    assert [(each.op, each.group_size, each.scope) for each in found] == [
        ("all_reduce", 2, INTER),
        ("broadcast", 1, INTRA),
    ]


def test_columns_come_from_the_header(tmp_path: Path) -> None:
    """Per-iteration columns (-I 1), time stamps, and version 2.0, which had no root."""
    times = "102.10 164.32 246.47 0 100 110 109 2.5"
    wide = HEADER.replace("#wrong", "#wrong i_min i_max i_p99 i_cv%") + " timestamp\n"
    text = wide + f"16777216 4194304 float sum -1 {times} {times.replace('102.10', '99.19')} 2026-06-08 10:11:12\n"
    assert entries(tmp_path, text, "all_reduce.txt")[0].time_us == (99.19,)
    old = "#  size  count  type  redop  time  algbw  busbw  error  time  algbw  busbw  error\n"
    row = "16777216 4194304 float sum 102.10 164.32 246.47 1e-06 99.19 169.14 253.70 1e-06\n"
    assert entries(tmp_path, old + row, "all_reduce.txt")[0].time_us == (99.19,)


def test_in_place_only_and_not_at_all(tmp_path: Path) -> None:
    replayed = HEADER + "\n16777216 4194304 float none -1 99.19 169.14 126.86 0\n"
    assert entries(tmp_path, replayed, "all_gather.txt")[0].time_us == (99.19,)
    assert [row.out_of_place_us for stretch in parse_log(replayed) for row in stretch.rows] == [None]
    not_in_place = HEADER + "\n16777216 4194304 float none -1 102.10 164.32 246.47 0 N/A N/A N/A N/A\n"
    assert entries(tmp_path, not_in_place, "all_reduce.txt")[0].time_us == (102.10,)


def test_lines_tagged_by_mpirun(tmp_path: Path) -> None:
    tagged = "".join(f"[1,0]<stdout>:{line}" for line in LOG.splitlines(keepends=True))
    assert entries(tmp_path, tagged) == entries(tmp_path, LOG)


def test_cpu_times_are_no_transfers(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="CPU times"):
        entries(tmp_path, LOG.replace(" time ", " cputime "))


def test_no_rows_and_no_times(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="neither a calibration nor a log"):
        entries(tmp_path, "hello\n")
    with pytest.raises(TraceError, match="no time of a message"):
        entries(tmp_path, LOG.split("           8 ")[0])


@pytest.mark.skipif(not REAL.is_dir(), reason=f"the real logs are not here: {REAL}")
def test_every_number_of_the_real_logs() -> None:
    columns = ("size_bytes", "oop_us", "oop_algbw_GBs", "oop_busbw_GBs", "ip_us", "ip_algbw_GBs", "ip_busbw_GBs")
    expected: dict[str, list[Row]] = {}
    with (REAL / "reference_busbw.csv").open() as file:
        for line in csv.DictReader(file):
            size, *numbers = (line[column] for column in columns)
            expected.setdefault(line["file"], []).append(Row(int(size), *map(float, numbers)))
    assert sum(map(len, expected.values())) == 304
    for name, rows in expected.items():
        assert [row for stretch in parse_log((REAL / name).read_text()) for row in stretch.rows] == rows


@pytest.mark.skipif(not REAL.is_dir(), reason=f"the real logs are not here: {REAL}")
def test_the_real_logs_as_calibrations(tmp_path: Path) -> None:
    for name in ("all_gather", "all_reduce", "reduce_scatter"):
        (entry,) = read_calibration(REAL / f"{name}.txt").entries
        assert (entry.op, entry.group_size, entry.scope) == (name, 4, INTRA)
        assert entry.bytes[-1] == 8589934592
    for gpus in (2, 4, 6):
        (entry,) = read_calibration(REAL / "scaling_attributed" / f"g{gpus}_auto.log").entries
        assert (entry.op, entry.group_size, len(entry.bytes)) == ("all_reduce", gpus, 6)
    found = entries(tmp_path, (REAL / "scaling.txt").read_text(), "all_reduce_scaling.txt")
    assert [each.group_size for each in found] == [2, 4, 6]
    with pytest.raises(TraceError, match="name the file after it"):
        read_calibration(REAL / "scaling.txt")
