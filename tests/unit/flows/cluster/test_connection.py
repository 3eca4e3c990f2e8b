"""The handler of SIGTERM around the start of Ray."""

from __future__ import annotations

import signal
import sys

import pytest

from flows.cluster.connection import _own_sigterm_handler
from tests.support.signals import deliver, delivered_signals


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
