"""Variables that are set for the length of a block."""

from __future__ import annotations

import os

import pytest

from flows.config.environment import environment


def test_variables_are_as_before_after_the_block_even_where_it_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNETFLOW_TEST_SET", "before")
    monkeypatch.delenv("UNETFLOW_TEST_UNSET", raising=False)
    with pytest.raises(RuntimeError), environment({"UNETFLOW_TEST_SET": "1", "UNETFLOW_TEST_UNSET": "2"}):
        assert (os.environ["UNETFLOW_TEST_SET"], os.environ["UNETFLOW_TEST_UNSET"]) == ("1", "2")
        raise RuntimeError
    assert os.environ["UNETFLOW_TEST_SET"] == "before"
    assert "UNETFLOW_TEST_UNSET" not in os.environ
