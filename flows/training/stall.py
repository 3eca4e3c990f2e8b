"""Alert for a training that has stopped making steps."""

from __future__ import annotations

import logging
import time

from flows.config.specs import NotifySpec
from flows.notification import send
from flows.training.forecast import Forecast

logger = logging.getLogger(__name__)

MIN_SECONDS = 60.0
"""Time without a report below which nothing is said, however short the steps are."""


class StallAlert:
    """Warns once, in the log and at the notification targets, while the workers report no further step."""

    def __init__(self, name: str, forecast: Forecast, spec: NotifySpec) -> None:
        self._name, self._forecast, self._spec = name, forecast, spec
        self._reported = time.monotonic()
        self._is_told = False

    def report(self) -> None:
        """Note that the workers reported something."""
        now = time.monotonic()
        if self._is_told:
            logger.info("%s: steps resumed after %.0f s", self._name, now - self._reported)
        self._reported, self._is_told = now, False

    def check(self) -> None:
        """Warn where the last report is too old. Before the first report of workers nothing is usual yet."""
        usual = self._forecast.seconds_between_reports
        if not self._spec.stall_factor or usual is None or self._is_told or not self._forecast.seconds_left:
            return
        waited = time.monotonic() - self._reported
        if waited > max(MIN_SECONDS, self._spec.stall_factor * usual):
            self._is_told = True
            text = (
                f"{self._name}: no step after step {self._forecast.step} for {waited:.0f} s, where reports come every "
                f"{usual:.1f} s. A worker, the data or the storage hangs: look at `unetflow status` and at the "
                "nodes; when stopped and restarted, it resumes from the last checkpoint"
            )
            logger.warning(text)
            send(self._spec, text)
