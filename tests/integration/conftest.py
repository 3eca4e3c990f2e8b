"""What the integration tests share: a Prefect server, a run of the diffusion pipeline on generated shapes, an order."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadFileScheduling

from tests.support.configs import TINY_SHAPES
from tests.support.project import Project

DIFFUSION = "test_diffusion_"
LONGEST_FIRST = (
    DIFFUSION, "test_family", "test_folds", "test_training", "test_pipeline", "test_restoration_pipeline",
    "test_nightly", "test_ablation", "test_search", "test_bucket_pipeline", "test_multimodal", "test_stopped_run",
    "test_toy_pipeline",
)  # fmt: skip
"""Beginnings of the names of the files that take a minute and more, by their times."""


class LongestFirst(LoadFileScheduling):
    """Files over processes, in order; both files of the diffusion pipeline share a run of it, and so a process."""

    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        return DIFFUSION if f"/{DIFFUSION}" in file else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LongestFirst | None:
    if config.getvalue("dist") != "loadfile":
        return None
    config.option.loadscopereorder = False  # which is by the number of tests
    return LongestFirst(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put long files first: short ones are left for the end, so that no process waits long for the other."""

    def place(item: pytest.Item) -> int:
        name = item.path.stem
        return next((i for i, each in enumerate(LONGEST_FIRST) if name.startswith(each)), len(LONGEST_FIRST))

    items.sort(key=place)


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
