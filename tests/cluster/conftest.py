"""The table of faults, which every test of this folder adds its rows to, and which is printed in the end."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.faults import STRUCK, FaultRow, StruckProject, struck_project, table_text


@pytest.fixture(scope="session")
def rows(request: pytest.FixtureRequest) -> Iterator[list[FaultRow]]:
    """Rows of the table, printed whatever pytest captures."""
    found: list[FaultRow] = []
    yield found
    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        print("\n" + table_text(found))


@pytest.fixture(scope="session")
def undisturbed() -> Iterator[dict[str, Any]]:
    """The weights of a run that nothing happens to."""
    with struck_project(STRUCK) as project:
        run = project.start("train")
        assert run.finish() == 0, run.said
        yield project.weights()


@pytest.fixture
def project() -> Iterator[StruckProject]:
    with struck_project(STRUCK) as found:
        yield found
