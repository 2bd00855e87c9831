"""A local Dask cluster of two workers, shared by the tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from commlens.cluster.connect import connected
from commlens.cluster.engine import Cluster


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    with connected(2, None) as engine:
        yield engine
