"""Notifications of new champions and failures: a webhook on loopback takes the messages."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any
from urllib.parse import urlsplit

import pytest

from flows.config.specs import NotifySpec
from flows.running.execution import RunSummary, StageSummary
from flows.running.notify import notify_of_champion, notify_of_failure

REGISTERED = StageSummary(name="register", key="k", uri="/store/register/k", cached=False, seconds=1.0)
SUMMARY = RunSummary(
    pipeline="segmentation",
    model_name="liver",
    model_version=3,
    model_uri="models:/liver@champion",
    alias="champion",
    reason="dice 0.9 beats 0.8",
    metrics={"dice": 0.9, "dice/liver": 0.91},
    report="/store/report.html",
    seconds=2.0,
    stages=(REGISTERED,),
)


@pytest.fixture
def webhook(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[NotifySpec, list[str]]]:
    """Start a webhook; return its settings and the texts that it received."""
    received: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"])))["text"])
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    monkeypatch.setenv("TEST_WEBHOOK", f"http://127.0.0.1:{server.server_port}/hook")
    yield NotifySpec(webhook="TEST_WEBHOOK"), received
    server.shutdown()
    server.server_close()


def test_new_champion_with_its_report(webhook: tuple[NotifySpec, list[str]]) -> None:
    spec, received = webhook
    notify_of_champion(spec, SUMMARY)
    assert received == [
        "liver: version 3 is champion (dice 0.9 beats 0.8). dice 0.9000\nreport: file:///store/report.html"
    ]


@pytest.mark.parametrize(
    "changed",
    [{"alias": "challenger"}, {"stages": (REGISTERED.model_copy(update={"cached": True}),)}, {"stages": ()}],
    ids=["challenger", "cache hit", "not registered"],
)
def test_nothing_new_is_not_announced(webhook: tuple[NotifySpec, list[str]], changed: dict[str, Any]) -> None:
    spec, received = webhook
    notify_of_champion(spec, SUMMARY.model_copy(update=changed))
    assert received == []


def test_failure_in_its_first_line_with_the_run(webhook: tuple[NotifySpec, list[str]]) -> None:
    spec, received = webhook
    notify_of_failure(spec, "liver", "OSError: disk full\n  at somewhere", "http://prefect/run/1")
    notify_of_failure(spec, "liver", "")
    assert received == [
        "liver: the pipeline failed: OSError: disk full\nrun: http://prefect/run/1",
        "liver: the pipeline failed: no message",
    ]


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/secret?secret=1", "other://127.0.0.1/secret", "http://h/secret x"])
def test_a_dead_webhook_is_logged_without_its_url_and_costs_nothing(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("TEST_WEBHOOK", url)
    with caplog.at_level(logging.WARNING):
        notify_of_failure(NotifySpec(webhook="TEST_WEBHOOK"), "liver", "x")
    assert f"notify: TEST_WEBHOOK, {urlsplit(url).hostname}: " in caplog.text
    assert "secret" not in caplog.text


def test_a_webhook_that_is_not_set_is_told(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TEST_WEBHOOK", raising=False)
    notify_of_failure(NotifySpec(webhook="TEST_WEBHOOK"), "liver", "x")
    assert "TEST_WEBHOOK is not set where the pipeline runs" in caplog.text


def test_a_report_on_a_server_is_linked_there(webhook: tuple[NotifySpec, list[str]]) -> None:
    spec, received = webhook
    notify_of_champion(spec, SUMMARY.model_copy(update={"pages": {"report": "http://mlflow/#/report"}}))
    assert received[0].endswith("report: http://mlflow/#/report")


def test_without_a_target_nothing_is_sent(caplog: pytest.LogCaptureFixture) -> None:
    notify_of_champion(NotifySpec(), SUMMARY)
    notify_of_failure(NotifySpec(), "liver", "x")
    assert caplog.text == ""
