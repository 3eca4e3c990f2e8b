"""The Jobs API: which cluster, what is refused before anything is sent, and retries of the connection."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest
import requests

from data_pipelines.errors import ConfigError, ServerError
from flows.cluster import jobs_api
from flows.cluster.jobs_api import connect, head_start, is_loopback, jobs_address, retry_connection


@pytest.mark.parametrize(
    ("address", "message"),
    [("192.0.2.1:6379", "http://HOST:8265"), ("http://192.0.2.1:8265", "set RAY_AUTH_TOKEN")],
)
def test_refused_before_anything_is_sent(address: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    with pytest.raises(ConfigError, match=message):
        connect(address)


def test_nothing_listens() -> None:
    with pytest.raises(ServerError, match="no Ray dashboard answers"):
        connect("http://127.0.0.1:9")


def test_where_stages_run(monkeypatch: pytest.MonkeyPatch) -> None:
    assert jobs_address() is None
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert jobs_address() is None
    monkeypatch.setenv("RAY_ADDRESS", "https://ray.example.org")
    assert jobs_address() == "https://ray.example.org"
    monkeypatch.setenv("UNETFLOW_JOBS_ADDRESS", "auto")
    assert jobs_address() == "auto"


def test_loopback() -> None:
    assert is_loopback("http://127.0.0.1:8265")
    assert is_loopback("http://[::1]:8265")
    assert is_loopback("http://localhost:8265")
    assert not is_loopback("http://10.0.0.1:8265")
    assert not is_loopback("http://127.0.0.1.example.org")


@pytest.mark.parametrize(
    ("session", "started"), [("session_2026-01-31_12-00-01_123456_42", "2026-01-31 12:00:01"), ("other", "")]
)
def test_a_heads_session_says_when_it_was_started(session: str, started: str) -> None:
    answer = SimpleNamespace(ok=True, json=lambda: {"session_name": session})
    client: Any = SimpleNamespace(_do_request=lambda method, path: answer)
    assert head_start(client) == started


class Flaky:
    """A call that breaks ``num_failures`` times before it succeeds."""

    def __init__(self, error: Exception, num_failures: int) -> None:
        self.error, self.left = error, num_failures

    def __call__(self) -> str:
        if self.left:
            self.left -= 1
            raise self.error
        return "answer"


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Sleep not at all, and record for how long it would have been."""
    delays: list[float] = []
    monkeypatch.setattr(time, "sleep", delays.append)
    return delays


@pytest.mark.parametrize("error", [ConnectionError("gone"), requests.ConnectionError("gone")])
def test_a_broken_connection_is_retried_ever_more_slowly(error: Exception, slept: list[float]) -> None:
    assert retry_connection(Flaky(error, 6), "train-1") == "answer"
    assert slept == [1, 2, 4, 8, 15, 15]


def test_a_connection_that_stays_broken_and_other_errors_are_raised(
    slept: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RuntimeError, match="404"):
        retry_connection(Flaky(RuntimeError("404"), 1), "train-1")
    monkeypatch.setattr(jobs_api, "RETRY_SECONDS", -1.0)
    with pytest.raises(ConnectionError, match="gone"):
        retry_connection(Flaky(ConnectionError("gone"), 1), "train-1")
    assert slept == []
