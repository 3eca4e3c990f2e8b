"""Metrics on their way to MLflow: nobody waits for a server, and what it did not take is logged at registration."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from flows.config.pipeline import PipelineConfig
from flows.config.specs import RegistrySpec
from flows.registry import run_logger, tracking
from flows.registry.run_logger import RunLogger, complete_run
from flows.training.figures import TrainingFigures
from flows.training.goodput import TimeSplit
from flows.training.history import Resume
from tests.support.records import finished

ROWS = [{"step": step, "train/loss": 1 / step} for step in (1, 2, 3, 4)]


@pytest.fixture(autouse=True)
def restored(monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow writes the address of its server into the environment: what was there comes back after the test."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")


def configure(storage: Path) -> PipelineConfig:
    return PipelineConfig.model_validate({"pipeline": "p", "storage": str(storage)})


class SilentServer(ThreadingHTTPServer):
    """Takes requests and answers none until it is released."""

    def __init__(self) -> None:
        self.asked, self.released = threading.Event(), threading.Event()
        asked, released = self.asked, self.released

        class Handler(BaseHTTPRequestHandler):
            """Holds a request, then refuses it."""

            def do_GET(self) -> None:
                asked.set()
                released.wait()
                self.send_error(400)

            def log_message(self, *_: object) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> Iterator[SilentServer]:
    server = SilentServer()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr(run_logger, "CLOSE_SECONDS", 0.01)
    yield server
    server.released.set()
    server.shutdown()
    server.server_close()


def test_nobody_waits_for_a_server_that_does_not_answer(
    silent: SilentServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with RunLogger(configure(tmp_path), "key") as run:
        run.log(ROWS[:2])
        assert silent.asked.wait(60)
        run.log(ROWS[2:])
    assert not silent.released.is_set(), "the block ended while the server kept its first request waiting"
    assert (run.run_id, run.num_waiting) == (None, 4)
    assert "has not accepted all metrics: the rest is logged at registration" in caplog.text
    silent.released.set()
    run._thread.join()


def test_a_server_that_comes_back_gets_every_value_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sent: list[tuple[str, int]] = []
    failed, back = threading.Event(), threading.Event()

    def send(client: object, run_id: str, metrics: list[Any]) -> None:
        if not back.is_set():
            failed.set()
            raise ConnectionError("no route\nto the host")
        sent.extend((metric.key, metric.step) for metric in metrics)

    monkeypatch.setattr(run_logger, "RETRY_SECONDS", 0.001)
    monkeypatch.setattr(tracking, "use_server", lambda uri: mock.Mock())
    monkeypatch.setattr(tracking, "open_run", lambda *_: "the run")
    monkeypatch.setattr(tracking, "log_parameters", lambda *_: None)
    monkeypatch.setattr(tracking, "send_metrics", send)
    caplog.set_level("INFO", "flows")
    with RunLogger(configure(tmp_path), "key") as run:
        run.log(ROWS[:2])
        assert failed.wait(60)
        run.log(ROWS[2:3])
        back.set()
        run.log(ROWS[3:])
    assert sent == [("train/loss", step) for step in (1, 2, 3, 4)]
    assert (run.run_id, run.num_waiting) == ("the run", 0)
    assert caplog.text.count("logging to MLflow failed, training continues: no route") == 1
    assert caplog.text.count("MLflow responds again") == 1


def test_the_oldest_values_make_room(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(run_logger, "MAX_WAITING", 3)
    run = RunLogger(configure(tmp_path), "key")
    run.log(ROWS)
    assert [metric.step for metric in run._metrics] == [2, 3, 4]


@pytest.mark.parametrize(
    ("error", "status"), [(None, "FINISHED"), (RuntimeError(), "FAILED"), (SystemExit(), "KILLED")]
)
def test_a_run_ends_as_its_training_does(tmp_path: Path, error: BaseException | None, status: str) -> None:
    client = tracking.connect(str(tmp_path))
    for expected in (error, None):  # an attempt, and the one that resumes it
        with contextlib.suppress(RuntimeError, SystemExit), RunLogger(configure(tmp_path), "the key") as run:
            run.log(ROWS[:1])
            while run.num_waiting:
                time.sleep(0.01)
            assert run.run_id is not None
            assert client.get_run(run.run_id).info.status == "RUNNING"
            if expected is not None:
                raise expected
        assert client.get_run(run.run_id).info.status == ("FINISHED" if expected is None else status)


def test_registration_logs_what_is_missing_and_nothing_twice(tmp_path: Path) -> None:
    config = configure(tmp_path)
    with RunLogger(config, "the key") as run:
        run.log([ROWS[0] | {"val/dice": 0.5}])
    (tmp_path / "curves.json").write_text(json.dumps([ROWS[0] | {"val/dice": 0.5}, *ROWS[1:]]))
    resume = Resume(step=2, repeated_steps=1)
    times = TimeSplit(wall=4, productive=3, start=1)
    figures = TrainingFigures(step=4, run_id=None, num_workers=1, resumes=(resume,), times=times)
    record = finished("train", figures, str(tmp_path), curves="curves.json").model_copy(update={"key": "the key"})
    client = tracking.connect(str(tmp_path))
    assert complete_run(client, RegistrySpec(), record) == 3 + len(times.metrics())
    assert complete_run(client, RegistrySpec(), record) == 0
    assert run.run_id is not None
    losses = client.get_metric_history(run.run_id, "train/loss")
    assert sorted((metric.step, metric.value) for metric in losses) == [(step, 1 / step) for step in (1, 2, 3, 4)]
    tracking.send_metrics(client, run.run_id, losses)
    assert len(client.get_metric_history(run.run_id, "train/loss")) == 4, "a request may be repeated"
    assert client.get_run(run.run_id).data.metrics["goodput_percent"] == 75
    assert client.get_run(run.run_id).data.tags["unetflow.last_resume"] == resume.describe()
