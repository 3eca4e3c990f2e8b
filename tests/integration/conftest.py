"""What the integration tests share: one Prefect server, and one run of the diffusion pipeline on generated shapes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.configs import TINY_SHAPES
from tests.support.project import Project


@pytest.fixture(scope="session")
def prefect_url(isolated_home: Path) -> Iterator[str]:
    """Address of a Prefect API, which flows in this process use."""
    import flows.running.prefect_settings  # noqa: F401 # isort: skip - before Prefect, and in the empty home
    from prefect.settings import PREFECT_API_URL
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=180):
        yield str(PREFECT_API_URL.value())


@pytest.fixture(scope="session")
def shapes_project(tmp_path_factory: pytest.TempPathFactory, prefect_url: str) -> tuple[Project, dict[str, Any]]:
    """A home in which the diffusion pipeline ran once; tests may remove evaluations, and add trainings."""
    found = Project(tmp_path_factory.mktemp("d"), TINY_SHAPES)
    return found, found.run("run", str(found.config))
