"""Who hears of what: a webhook on loopback takes the messages."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from flows.running.notify import tell_of_champion, tell_of_failure
from flows.config.specs import NotifySpec

RESULT = {
    "model_name": "liver",
    "model_version": 3,
    "alias": "champion",
    "reason": "dice 0.9 beats 0.8",
    "metrics": {"dice": 0.9, "dice/liver": 0.91},
    "report": "/store/report.html",
    "pages": {},
    "stages": [{"name": "register", "cached": False}],
}


@pytest.fixture
def webhook() -> Iterator[tuple[NotifySpec, list[str]]]:
    """Where to send, and what came."""
    heard: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            heard.append(json.loads(self.rfile.read(int(self.headers["Content-Length"])))["text"])
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield NotifySpec(webhook=f"http://127.0.0.1:{server.server_port}/hook"), heard
    server.shutdown()
    server.server_close()


def test_new_champion_with_its_report(webhook: tuple[NotifySpec, list[str]]) -> None:
    spec, heard = webhook
    tell_of_champion(spec, RESULT)
    assert heard == [
        "liver: version 3 is champion (dice 0.9 beats 0.8). dice 0.9000\nreport: file:///store/report.html"
    ]


@pytest.mark.parametrize(
    "changed", [{"alias": "challenger"}, {"stages": [{"name": "register", "cached": True}]}, {"stages": []}]
)
def test_nothing_new_is_not_told(webhook: tuple[NotifySpec, list[str]], changed: dict[str, Any]) -> None:
    spec, heard = webhook
    tell_of_champion(spec, RESULT | changed)
    assert heard == []


def test_failure_in_its_first_line_with_the_run(webhook: tuple[NotifySpec, list[str]]) -> None:
    spec, heard = webhook
    tell_of_failure(spec, "liver", "OSError: disk full\n  at somewhere", "http://prefect/run/1")
    assert heard == ["liver: the pipeline failed: OSError: disk full\nrun: http://prefect/run/1"]


def test_a_dead_webhook_is_logged_and_costs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        tell_of_failure(NotifySpec(webhook="http://127.0.0.1:9/hook?secret=1"), "liver", "x")
    assert "http://127.0.0.1:9/hook" in caplog.text
    assert "secret" not in caplog.text


def test_a_report_on_a_server_is_linked_there(webhook: tuple[NotifySpec, list[str]]) -> None:
    spec, heard = webhook
    tell_of_champion(spec, RESULT | {"pages": {"report": "http://mlflow/#/report"}})
    assert heard[0].endswith("report: http://mlflow/#/report")
