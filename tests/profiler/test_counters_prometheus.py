"""The text file for node-exporter."""

from __future__ import annotations

from pathlib import Path

import pytest
from exposition import parse

from commlens.profiler.counters import prometheus
from commlens.profiler.counters.prometheus import EVERY_S, Own, TextFile, exposition
from commlens.profiler.live import _warned
from commlens.trace.counters import COUNTERS

LINKS = [{"name": "lo", "kind": "ethernet"}, {"name": "gpu0", "kind": "gpu"}, {"name": "mlx5_0/1", "kind": "roce"}]
VALUES = {
    ("lo", "tx_bytes"): 2**62 + 1,
    ("mlx5_0/1", "tx_bytes"): 7,
    ("gpu0", "power_mw"): 512_345,
    ("gpu0", "sm_clock_mhz"): 1980,
    ("gpu0", "temperature_c"): 61,
    ("gpu0", "throttle_reasons"): 0x24,
}


def text(run: str = "20261121-job-4d02") -> str:
    return "".join(exposition(run, 3, VALUES, LINKS, Own(40, 2), 1_795_000_000.5))


def test_every_number_is_there_in_base_units() -> None:
    found = parse(text())
    totals = found["commlens_tx_bytes_total"]
    assert (totals.kind, totals.help) == ("counter", "sent")
    assert totals.of(device="lo", kind="ethernet", rank="3", run="20261121-job-4d02") == float(2**62 + 1)
    assert totals.of(device="mlx5_0/1", kind="roce") == 7
    assert found["commlens_power_watts"].of(device="gpu0") == pytest.approx(512.345)
    assert found["commlens_sm_clock_hertz"].of(device="gpu0") == 1.98e9
    assert found["commlens_temperature_celsius"].of(device="gpu0") == 61
    assert found["commlens_throttle_reasons_bits"].of(device="gpu0") == 0x24
    assert found["commlens_collectives_total"].of(rank="3") == 40
    assert found["commlens_dropped_total"].of(rank="3") == 2
    assert found["commlens_read_timestamp_seconds"].of(rank="3") == 1_795_000_000.5


def test_totals_are_written_to_the_last_byte() -> None:
    assert f" {2**62 + 1}\n" in text()


def test_any_name_of_a_run_is_escaped() -> None:
    run = 'a "quoted" \\ name\nof two lines, {with} braces'
    assert parse(text(run))["commlens_tx_bytes_total"].of(run=run, device="lo") == float(2**62 + 1)


def test_every_word_of_the_vocabulary_has_a_metric() -> None:
    values = {("lo", word): 1 for word in COUNTERS}
    found = parse("".join(exposition("run", 0, values, LINKS, Own(), 0.0)))
    assert len(found) == len(COUNTERS) + 3


def test_the_parser_refuses_what_a_collector_would() -> None:
    for wrong in (
        "x 1",
        "# TYPE x counter\nx 1\n",
        "# TYPE x gauge\nx{a=b} 1\n",
        "x 1\n",
        "# TYPE x gauge\nx 1\nx 2\n",
    ):
        with pytest.raises(ValueError):
            parse(wrong)


def test_the_file_is_replaced_when_it_is_time_and_removed_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "commlens.prom"
    file = TextFile(path)
    file.write_when_due(["a\n"], 100.0)
    file.write_when_due(["b\n"], 100.0 + EVERY_S - 1)
    assert path.read_text() == "a\n"
    file.write_when_due(["c\n"], 100.0 + EVERY_S)
    assert path.read_text() == "c\n"
    assert [each.name for each in tmp_path.iterdir()] == ["commlens.prom"]
    file.remove()
    assert not path.exists()


def test_a_folder_that_is_not_there_costs_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _warned.clear()
    file = TextFile(tmp_path / "missing" / "commlens.prom")
    for at in range(5):
        file.write_when_due(["a\n"], at * EVERY_S)
    (line,) = capsys.readouterr().err.splitlines()
    assert "COMMLENS_PROMETHEUS: cannot write" in line
    file.remove()


def test_none_unless_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(prometheus.VARIABLE, raising=False)
    assert prometheus.asked() is None
    monkeypatch.setenv(prometheus.VARIABLE, str(tmp_path / "x.prom"))
    assert prometheus.asked() is not None
