"""What ``serve`` refuses before it imports Prefect."""

from __future__ import annotations

import pytest

from data_pipelines.errors import ConfigError
from flows.running.schedule import serve


def test_a_schedule_needs_a_server_and_one_way_to_say_when(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="set PREFECT_API_URL"):
        serve([], cron="0 2 * * *", interval=None, timezone="UTC")
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:4200/api")
    for cron, interval in ((None, None), ("0 2 * * *", 60.0)):
        with pytest.raises(ConfigError, match="give one of --cron and --interval"):
            serve([], cron=cron, interval=interval, timezone="UTC")
