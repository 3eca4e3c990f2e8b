"""Names that sort by time, and the tags of a run."""

from __future__ import annotations

import pytest

from flows.config.run_id import RUN_ID_VARIABLE, UNIQUE_NAME, run_tags, unique_name


def test_a_unique_name_is_known_again() -> None:
    names = {unique_name() for _ in range(20)}
    assert len(names) == 20
    assert all(UNIQUE_NAME.fullmatch(name) for name in names)
    assert not UNIQUE_NAME.fullmatch("20260101-020000-a1b2c3-2")


def test_only_what_belongs_to_a_run_has_its_tag(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(RUN_ID_VARIABLE, "run-7")
    assert run_tags() == {"unetflow.run_id": "run-7"}
    monkeypatch.delenv(RUN_ID_VARIABLE)
    assert run_tags() == {}
