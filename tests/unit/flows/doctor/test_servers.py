"""Checks of servers, each broken once; they are small ones on loopback, with the real ones' answers."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import ray

from data_pipelines.errors import ConfigError, ServerError
from flows.doctor import servers
from flows.pipelines.segmentation.config import SegmentationConfig
from tests.support.findings import states, the_bad

PREFECT, MLFLOW = importlib.metadata.version("prefect"), importlib.metadata.version("mlflow")
NODES = [{"state": "ALIVE", "resources_total": {"CPU": 2.0}}, {"state": "DEAD", "resources_total": {"CPU": 64.0}}]
PAGES = {
    "/api/admin/version": PREFECT,
    "/api/2.0/mlflow/registered-models/search?max_results=1": {},
    "/version": MLFLOW,
    "/api/version": {
        "version": "4",
        "ray_version": ray.__version__,
        "ray_commit": "",
        "session_name": "s",
    },
    "/api/v0/cluster_metadata": {"data": {"rayVersion": ray.__version__, "pythonVersion": platform.python_version()}},
    "/api/v0/nodes?limit=10000": {"data": {"result": {"result": NODES}}},
}
CLOSED = ("/api/admin/version", "/api/2.0/mlflow/registered-models/search?max_results=1", "/api/version")

Serve = Callable[..., str]


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """Start servers with given pages, whose closed ones want ``authorization``; each call returns a URL."""
    for name in ("PREFECT_API_URL", "MLFLOW_TRACKING_URI", "RAY_ADDRESS", "RAY_AUTH_TOKEN", "PREFECT_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    started = []

    def start(pages: dict[str, Any] | None = None, authorization: str = "", date: str = "") -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                known = PAGES | (pages or {})
                if self.path in CLOSED and authorization not in ("", self.headers.get("Authorization")):
                    status, body = 401, b"who is there?"
                elif self.path in known:
                    page = known[self.path]
                    text = page if self.path == "/version" else json.dumps(page)
                    status, body = 200, text.encode()
                else:
                    status, body = 404, b""
                self.send_response_only(status)
                self.send_header("Date", date or self.date_time_string())
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        started.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in started:
        server.shutdown()
        server.server_close()


def test_all_is_well(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", f"{serve(authorization='Basic YTpi')}/api")
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", "a:b")
    assert states(servers.check_prefect()) == {"prefect": "ok", "prefect version": "ok"}
    monkeypatch.setenv("MLFLOW_TRACKING_URI", serve(authorization="Bearer t"))
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "t")
    assert states(servers.check_mlflow()) == {"mlflow": "ok", "mlflow version": "ok"}
    monkeypatch.setenv("RAY_ADDRESS", serve())  # open: Ray reads its token once a process
    assert states(servers.check_ray(None)) == {"ray": "warning", "ray versions": "ok", "ray resources": "ok"}
    servers.require_servers()


def test_a_server_that_is_down(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    found = the_bad(servers.check_prefect())
    assert (found.subject, found.state) == ("prefect", "bad")
    assert "does not answer" in found.text
    assert "curl http://127.0.0.1:9/api" in found.remedy
    with pytest.raises(ServerError, match="does not answer"):
        servers.require_servers()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    servers.require_login()


@pytest.mark.parametrize("uri", ["localhost:5000", "127.0.0.1:5000", "./mlruns", "file:///tmp/mlruns"])
def test_an_address_of_mlflow_that_is_none(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    found = the_bad(servers.check_mlflow())
    assert f"MLFLOW_TRACKING_URI={uri} is neither a server nor a database" in found.text
    with pytest.raises(ConfigError, match="write http://HOST:PORT of a server"):
        servers.require_servers()


@pytest.mark.parametrize("password", ["", "wrong"])
def test_credentials_missing_and_wrong(serve: Serve, monkeypatch: pytest.MonkeyPatch, password: str) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", serve(authorization="Basic YTpi"))
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "a")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", password)
    found = the_bad(servers.check_mlflow())
    assert f"MLFLOW_TRACKING_PASSWORD is {'wrong' if password else 'missing'}" in found.text
    assert found.remedy == "export MLFLOW_TRACKING_PASSWORD=..."
    with pytest.raises(ServerError, match=r"mlflow: .*MLFLOW_TRACKING_PASSWORD is"):
        servers.require_login()
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    assert the_bad(servers.check_mlflow()).remedy.endswith(
        "where Ray is started on the nodes: credentials do not travel"
    )


def test_a_server_that_answers_anybody(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", serve())
    found = the_bad(servers.check_mlflow())
    assert (found.state, "answers anybody" in found.text) == ("warning", True)


def test_a_server_of_another_version(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", serve({"/version": "2.0.1"}, authorization="Bearer t"))
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "t")
    found = the_bad(servers.check_mlflow())
    assert (found.subject, found.remedy) == ("mlflow version", "pip install mlflow==2.0.1")


def test_a_clock_that_is_off(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    old = serve(authorization="Basic YTpi", date="Thu, 01 Jan 2026 00:00:00 GMT")
    monkeypatch.setenv("PREFECT_API_URL", f"{old}/api")
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", "a:b")
    found = the_bad(servers.check_prefect())
    assert found.subject == "prefect clock"
    assert found.remedy == "timedatectl set-ntp true"
    assert found.text.startswith("is -")


def test_a_cluster_of_other_versions_and_without_room(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    metadata = {"/api/v0/cluster_metadata": {"data": {"rayVersion": "2.0.0", "pythonVersion": "3.8.1"}}}
    monkeypatch.setenv("RAY_ADDRESS", serve(metadata))
    found = the_bad(servers.check_ray(None))
    assert found.subject == "ray versions"
    assert f"Ray {ray.__version__} here, 2.0.0 there" in found.text
    monkeypatch.setenv("RAY_ADDRESS", serve())
    config = SegmentationConfig.model_validate({"compute": {"num_workers": 2, "threads_per_worker": 2}})
    found = the_bad(servers.check_ray(config))
    assert found.subject == "ray resources"
    assert "1 nodes, 2 CPUs, 0 GPUs; the config needs 4 CPUs" in found.text


def test_credentials_of_mlflows_file_are_sent(serve: Serve, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", serve(authorization=servers.basic("me:100%")["Authorization"]))
    with pytest.raises(ServerError, match="MLFLOW_TRACKING_USERNAME is missing"):
        servers.require_mlflow()
    (tmp_path / ".mlflow").mkdir()
    (tmp_path / ".mlflow" / "credentials").write_text(
        "[mlflow]\nmlflow_tracking_username = me\nmlflow_tracking_password = 100%\n"
    )
    servers.require_mlflow()
