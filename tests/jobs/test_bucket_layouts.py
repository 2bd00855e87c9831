"""The bucket assignment against DDP itself: every configuration of bucket_job.py on the torch that is installed."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from job_runs import execute

from commlens.analyzers.whatif.buckets import BucketSettings, Parameter, buckets, first_buckets

pytestmark = pytest.mark.job
Configuration = dict[str, Any]
AT_LEAST = 50


@pytest.fixture(scope="module")
def configurations(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Configuration]:
    script = Path(__file__).with_name("bucket_job.py")
    job = execute([sys.executable, str(script)], {}, tmp_path_factory.mktemp("buckets"))
    assert job.rc == 0, job.stderr
    found: dict[str, Configuration] = json.loads(job.stdout)
    assert len(found) >= AT_LEAST
    return found


def given(configuration: Configuration) -> tuple[list[Parameter], BucketSettings]:
    settings = dict(configuration["settings"])
    settings["bucket_cap_mb_list"] = tuple(settings.get("bucket_cap_mb_list", ()))
    return [Parameter(**parameter) for parameter in configuration["parameters"]], BucketSettings(**settings)


def as_lists(layout: tuple[tuple[int, ...], ...]) -> list[list[int]]:
    return [list(bucket) for bucket in layout]


def test_what_is_sent_in_the_end(configurations: dict[str, Configuration]) -> None:
    for name, seen in configurations.items():
        parameters, settings = given(seen)
        assert as_lists(buckets(parameters, seen["ready"], settings)) == seen["sent"], name


def test_what_is_sent_in_the_first_step(configurations: dict[str, Configuration]) -> None:
    for name, seen in configurations.items():
        assert as_lists(first_buckets(*given(seen))) == seen["first"], name


def test_what_ddp_logs(configurations: dict[str, Configuration]) -> None:
    for name, seen in configurations.items():
        parameters, settings = given(seen)
        layout = buckets(parameters, seen["ready"], settings)
        sizes = [sum(parameters[index].num_bytes for index in bucket) for bucket in layout]
        assert ", ".join(map(str, sizes)) == seen["logged_bytes"], name
        # DDP counts trainable parameters only.
        number = {index: str(nth) for nth, index in enumerate(i for i, p in enumerate(parameters) if p.trainable)}
        indices = ", ".join(" ".join(number[index] for index in bucket) for bucket in layout)
        assert seen["logged"] == (indices if settings.rebuilds else ""), name


def test_the_configurations_tell_rules_apart(configurations: dict[str, Configuration]) -> None:
    """Not giving a cap is not giving 25; the layouts are not all of one kind."""
    assert configurations["large"]["sent"] != configurations["large, bucket_cap_mb=25"]["sent"]
    assert configurations["large"]["sent"] != configurations["large, last=True"]["sent"]
    assert len({str(seen["sent"]) for seen in configurations.values()}) > len(configurations) / 2
