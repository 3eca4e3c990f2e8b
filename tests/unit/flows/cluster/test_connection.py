"""Variables that are set for the length of a block, and the handler of SIGTERM around the start of Ray."""

from __future__ import annotations

import os
import signal
import sys

import pytest

from flows.cluster.connection import _own_sigterm_handler, environment
from tests.support.signals import deliver, delivered_signals


def test_variables_are_as_before_after_the_block_even_where_it_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNETFLOW_TEST_SET", "before")
    monkeypatch.delenv("UNETFLOW_TEST_UNSET", raising=False)
    with pytest.raises(RuntimeError), environment({"UNETFLOW_TEST_SET": "1", "UNETFLOW_TEST_UNSET": "2"}):
        assert (os.environ["UNETFLOW_TEST_SET"], os.environ["UNETFLOW_TEST_UNSET"]) == ("1", "2")
        raise RuntimeError
    assert os.environ["UNETFLOW_TEST_SET"] == "before"
    assert "UNETFLOW_TEST_UNSET" not in os.environ


def test_sigterm_while_ray_starts_exits_as_at_any_other_time() -> None:
    """Ray's handler exits with 15."""
    with delivered_signals(), pytest.raises(SystemExit) as stopped, _own_sigterm_handler():
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(number))
        signal.raise_signal(signal.SIGTERM)
    assert stopped.value.code == 143


def test_a_handler_of_sigterm_outlives_the_start_of_ray() -> None:
    def exits(*_: object) -> None:
        """The handler that Ray sets."""

    with delivered_signals():
        with _own_sigterm_handler():
            signal.signal(signal.SIGTERM, exits)
        assert signal.getsignal(signal.SIGTERM) is deliver
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        with _own_sigterm_handler():
            signal.signal(signal.SIGTERM, exits)
        assert signal.getsignal(signal.SIGTERM) is exits, "the default would leave Ray's processes behind"
