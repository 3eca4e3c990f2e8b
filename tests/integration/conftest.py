"""What the integration tests share: one Prefect server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def prefect_url(isolated_home: Path) -> Iterator[str]:
    """Address of a Prefect API, which flows in this process use."""
    import flows.running.prefect_settings  # noqa: F401 # isort: skip - before Prefect, and in the empty home
    from prefect.settings import PREFECT_API_URL
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=180):
        yield str(PREFECT_API_URL.value())
