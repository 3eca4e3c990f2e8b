"""The table of faults, which every test of this folder adds its rows to, and which is printed in the end."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.faults import FaultRow, table_text


@pytest.fixture(scope="session")
def rows(request: pytest.FixtureRequest) -> Iterator[list[FaultRow]]:
    """Rows of the table, printed whatever pytest captures."""
    found: list[FaultRow] = []
    yield found
    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        print("\n" + table_text(found))
