"""Metrics for Prometheus: what is known of the stages that run here, on loopback alone."""

from __future__ import annotations

import urllib.request
from pathlib import Path

import psutil
import pytest

from data_pipelines.errors import ConfigError
from flows.config.run_id import RUN_ID_VARIABLE
from flows.running.exporter import GAUGES, PORT_VARIABLE, serve_metrics
from flows.stages.status import keep_status
from tests.support.serving import free_port

KEY = "c" * 64


def scrape(port: int) -> list[str]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as answer:
        return [line for line in answer.read().decode().splitlines() if not line.startswith("#")]


def test_a_training_is_served_with_its_labels(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    port = free_port()
    monkeypatch.setenv(PORT_VARIABLE, str(port))
    monkeypatch.setenv(RUN_ID_VARIABLE, "run-7")
    with serve_metrics(), keep_status(str(tmp_path / "train" / KEY), "segmentation", "liver") as keeper:
        first = scrape(port)
        keeper.update(step=40, num_steps=100, loss=0.5, checkpoint_at=keeper.status.started, gpu_memory_gib=2.0)
        lines = scrape(port)
        listening = [each.laddr for each in psutil.Process().net_connections("tcp") if each.status == "LISTEN"]
    labels = '{model="liver",run_id="run-7",stage="train"}'
    assert [line.partition("{")[0] for line in first] == ["unetflow_stage_seconds"], "the rest is not known yet"
    assert f"unetflow_step{labels} 40.0" in lines
    assert f"unetflow_loss{labels} 0.5" in lines
    assert f"unetflow_gpu_memory_bytes{labels} 2.147483648e+09" in lines
    assert {line.partition("{")[0] for line in lines} < {f"unetflow_{name}" for name in GAUGES}
    assert [address.ip for address in listening if address.port == port] == ["127.0.0.1"]
    with pytest.raises(OSError, match="refused"):
        scrape(port)


def test_without_the_variable_nothing_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PORT_VARIABLE, raising=False)
    before = psutil.Process().num_threads()
    with serve_metrics():
        assert psutil.Process().num_threads() == before


def test_a_port_that_is_taken_is_told_and_ends_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    port = free_port()
    monkeypatch.setenv(PORT_VARIABLE, str(port))
    with serve_metrics(), serve_metrics():
        assert f"{PORT_VARIABLE}={port}: Address already in use" in caplog.text
        assert scrape(port) == []


@pytest.mark.parametrize("port", ["0", "65536", "http", "-1"])
def test_what_is_no_port_is_refused(monkeypatch: pytest.MonkeyPatch, port: str) -> None:
    monkeypatch.setenv(PORT_VARIABLE, port)
    with pytest.raises(ConfigError, match=f"{PORT_VARIABLE}={port}: write a port"), serve_metrics():
        pass
