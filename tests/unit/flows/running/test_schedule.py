"""What ``serve`` refuses."""

from __future__ import annotations

import pytest

from data_pipelines.errors import ConfigError
from flows.config.pipeline import PipelineConfig
from flows.running.schedule import serve


def test_two_configurations_of_one_name_are_not_one_deployment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:4200/api")
    configs = [PipelineConfig(pipeline="segmentation")] * 2
    with pytest.raises(ConfigError, match="segmentation/unetflow is the name of several of these configurations"):
        serve(configs, cron="0 2 * * *", interval=None, timezone="UTC")


def test_a_schedule_needs_a_server_and_one_way_to_say_when(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="set PREFECT_API_URL"):
        serve([], cron="0 2 * * *", interval=None, timezone="UTC")
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:4200/api")
    for cron, interval in ((None, None), ("0 2 * * *", 60.0)):
        with pytest.raises(ConfigError, match="give one of --cron and --interval"):
            serve([], cron=cron, interval=interval, timezone="UTC")


@pytest.mark.parametrize(
    ("cron", "interval", "timezone", "message"),
    [
        ("0 2 * * *", None, "Europe/Berln", r"'Europe/Berln' is not a time zone; .*; did you mean Europe/Berlin\?"),
        ("0 2 * * *", None, "../etc/passwd", "--timezone '../etc/passwd' is not a time zone"),
        ("0 25 * *", None, "UTC", r"--cron '0 25 \* \*' must be minute, hour, day, month and weekday"),
        (None, 0.0, "UTC", "--interval 0 must be positive"),
    ],
)
def test_a_schedule_that_would_never_run_is_refused(
    monkeypatch: pytest.MonkeyPatch, cron: str | None, interval: float | None, timezone: str, message: str
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:4200/api")
    with pytest.raises(ConfigError, match=message):
        serve([], cron=cron, interval=interval, timezone=timezone)
