"""Checks of the servers that the environment names: reachable, authenticated, of the same version and time."""

from __future__ import annotations

import base64
import configparser
import importlib.metadata
import json
import os
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from data_pipelines.errors import ConfigError, ServerError, UserError
from data_pipelines.storage import home_folder
from flows.cluster.jobs_api import connect, is_job, is_loopback
from flows.config.locations import named_tracking_uri
from flows.config.pipeline import PipelineConfig
from flows.doctor.finding import Finding, bad, ok, warning

TIMEOUT_SECONDS = 10.0
IN_JOB = "  # where Ray is started on the nodes: credentials do not travel"
MAX_SKEW_SECONDS = 5.0
REFUSED = (401, 403)
"""HTTP statuses of a server that wants other credentials."""
OWN_CERTIFICATES = ("MLFLOW_TRACKING_SERVER_CERT_PATH", "MLFLOW_TRACKING_INSECURE_TLS", "REQUESTS_CA_BUNDLE")
"""Variables of MLflow's client that change which servers it trusts."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A server's answer; status 0 where there was none."""

    status: int
    body: bytes = b""
    skew_seconds: float = 0.0
    """Time by which the server's clock is ahead of ours."""
    error: str = ""


def ask(url: str, headers: Mapping[str, str] | None = None) -> Answer:
    """Send a GET request; failures are answers, too."""
    request = urllib.request.Request(url, headers=dict(headers or {}))
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:
            return Answer(answer.status, answer.read(), _skew(answer.headers.get("Date")))
    except urllib.error.HTTPError as error:
        return Answer(error.code, error.read(), _skew(error.headers.get("Date")))
    except (OSError, ValueError) as error:
        return Answer(0, error=str(getattr(error, "reason", error)))


def basic(login: str) -> dict[str, str]:
    """Build the header for ``USER:PASSWORD``; none without one."""
    return {"Authorization": f"Basic {base64.b64encode(login.encode()).decode()}"} if login else {}


def bearer(token: str) -> dict[str, str]:
    """Build the header for a token; none without one."""
    return {"Authorization": f"Bearer {token}"} if token else {}


@dataclass(frozen=True, slots=True)
class Server:
    """A server, a page of it that asks for credentials, and ours."""

    name: str
    url: str
    closed_path: str
    headers: dict[str, str]
    variable: str
    """Environment variable of the credentials."""

    def problem(self) -> Finding | None:
        """Return what keeps the server from being used, if anything."""
        answer = ask(self.url + self.closed_path, self.headers)
        if answer.status == 0:
            text = f"{self.url} does not answer ({answer.error})"
            return bad(self.name, text, f"start it, or correct the address: curl {self.url}")
        if answer.status in REFUSED:
            return self.refusal()
        if answer.status != 200:
            text = f"{self.url}{self.closed_path} answers {answer.status}"
            return bad(self.name, text, f"look at its log; curl {self.url}")
        return None

    def refusal(self) -> Finding:
        """Return that it refuses our credentials."""
        said = "wrong" if self.headers else "missing"
        remedy = f"export {self.variable}=..." + (IN_JOB if is_job() else "")
        return bad(self.name, f"{self.url}: {self.variable} is {said}", remedy)

    def check(self) -> Iterator[Finding]:
        """Check that it is reachable, asks for credentials, accepts ours, and has our time."""
        if problem := self.problem():
            yield problem
            return
        stranger = ask(self.url + self.closed_path)
        advice = f"switch its authentication on ({self.variable})"
        if stranger.status in REFUSED:
            yield ok(self.name, f"{self.url} answers, and asks for credentials")
        elif is_loopback(self.url):
            yield warning(self.name, f"{self.url} answers anybody on this machine", advice)
        else:
            yield bad(self.name, f"{self.url} answers anybody", advice)
        if abs(stranger.skew_seconds) > MAX_SKEW_SECONDS:
            yield bad(f"{self.name} clock", f"is {stranger.skew_seconds:+.0f} s from ours", "timedatectl set-ntp true")


def prefect_server() -> Server | None:
    """Return the server that ``PREFECT_API_URL`` names."""
    url = os.environ.get("PREFECT_API_URL", "").rstrip("/")
    headers = basic(os.environ.get("PREFECT_API_AUTH_STRING", ""))
    if key := os.environ.get("PREFECT_API_KEY"):
        headers = bearer(key)
    return Server("prefect", url, "/admin/version", headers, "PREFECT_API_AUTH_STRING") if url else None


def mlflow_server() -> Server | None:
    """Return the server that ``MLFLOW_TRACKING_URI`` names, if it is one. Raises ConfigError for a wrong address."""
    url = named_tracking_uri().rstrip("/")
    user, password = _mlflow_login()
    headers = basic(f"{user}:{password}") if user and password else {}
    if token := os.environ.get("MLFLOW_TRACKING_TOKEN"):
        headers = bearer(token)
    inside = "/api/2.0/mlflow/registered-models/search?max_results=1"
    variable = "MLFLOW_TRACKING_PASSWORD" if user else "MLFLOW_TRACKING_USERNAME"
    return Server("mlflow", url, inside, headers, variable) if url.startswith("http") else None


def _mlflow_login() -> tuple[str, str]:
    """Return user and password as MLflow's client finds them: in the environment, else in its file of credentials."""
    user, password = (os.environ.get(f"MLFLOW_TRACKING_{name}", "") for name in ("USERNAME", "PASSWORD"))
    if user and password:
        return user, password
    file = configparser.ConfigParser(interpolation=None)
    with suppress(OSError, configparser.Error, ConfigError):
        file.read(home_folder() / ".mlflow" / "credentials")
    if not file.has_section("mlflow"):
        return user, password
    section = file["mlflow"]
    return section.get("mlflow_tracking_username", user), section.get("mlflow_tracking_password", password)


def require_servers() -> None:
    """Raise ServerError, before long work begins, where a named server does not answer or refuses our credentials."""
    for server in (prefect_server(), mlflow_server()):
        if server and (problem := server.problem()):
            raise ServerError(f"{server.name}: {problem.text}; {problem.remedy}")


def require_mlflow() -> None:
    """Raise ServerError where a named MLflow server does not answer or refuses our credentials.

    MLflow's own client would retry for minutes. A server with certificates of its own is left to it.
    """
    server = mlflow_server()
    if server is None or (server.url.startswith("https") and any(map(os.environ.get, OWN_CERTIFICATES))):
        return
    if problem := server.problem():
        raise ServerError(f"{server.name}: {problem.text}; {problem.remedy}")


def require_login() -> None:
    """Raise ServerError where a named MLflow server refuses our credentials. One that is down may come back in time."""
    server = mlflow_server()
    if server and ask(server.url + server.closed_path, server.headers).status in REFUSED:
        problem = server.refusal()
        raise ServerError(f"{server.name}: {problem.text}; {problem.remedy}")


def check_prefect() -> Iterator[Finding]:
    """Check the server that ``PREFECT_API_URL`` names."""
    server = prefect_server()
    if server is None:
        yield ok("prefect", "PREFECT_API_URL is not set: each run starts a temporary server")
        return
    yield from server.check()
    answer = ask(server.url + server.closed_path, server.headers)
    if answer.status == 200:
        yield _same_version("prefect", json.loads(answer.body))


def check_mlflow() -> Iterator[Finding]:
    """Check the server that ``MLFLOW_TRACKING_URI`` names."""
    try:
        server = mlflow_server()
    except ConfigError as error:
        problem, _, remedy = str(error).partition(": ")
        yield bad("mlflow", problem, remedy)
        return
    if server is None:
        yield ok("mlflow", f"{os.environ.get('MLFLOW_TRACKING_URI') or 'SQLite below the storage folder'}: no server")
        return
    yield from server.check()
    answer = ask(f"{server.url}/version", server.headers)
    if answer.status == 200:
        yield _same_version("mlflow", answer.body.decode())


def check_ray(config: PipelineConfig | None) -> Iterator[Finding]:
    """Check the cluster where ``RAY_ADDRESS`` is a dashboard's URL, and whether it can run the configuration."""
    url = os.environ.get("RAY_ADDRESS", "").rstrip("/")
    if not url.startswith("http"):
        yield ok("ray", f"{url or 'RAY_ADDRESS is not set: each run starts a Ray of its own'}")
        return
    headers = bearer(os.environ.get("RAY_AUTH_TOKEN", ""))
    server = Server("ray", url, "/api/version", headers, "RAY_AUTH_TOKEN")
    yield from server.check()
    if server.problem():
        return
    try:
        connect(url)
        yield ok("ray versions", "Ray and Python are those of the cluster")
    except UserError as error:
        yield bad("ray versions", str(error), "install the cluster's versions, or make the cluster from the lock")
    yield _check_resources(url, headers, config)


def _check_resources(url: str, headers: Mapping[str, str], config: PipelineConfig | None) -> Finding:
    answer = ask(f"{url}/api/v0/nodes?limit=10000", headers)
    if answer.status != 200:
        return warning("ray resources", f"the state API answers {answer.status}", f"curl {url}/api/v0/nodes")
    nodes = [node for node in json.loads(answer.body)["data"]["result"]["result"] if node["state"] == "ALIVE"]
    have = {kind: sum(node["resources_total"].get(kind, 0) for node in nodes) for kind in ("CPU", "GPU")}
    text = f"{len(nodes)} nodes, {have['CPU']:g} CPUs, {have['GPU']:g} GPUs"
    if config is None:
        return ok("ray resources", text)
    compute = config.compute
    want = compute.required_resources
    if short := [f"{want[kind]} {kind}s" for kind in want if have[kind] < want[kind]]:
        needs = f"{text}; the config needs {', '.join(short)}"
        return bad("ray resources", needs, "--set compute.num_workers=1  # unless an autoscaler adds nodes")
    return ok("ray resources", f"{text}; enough for the config")


def _same_version(subject: str, there: str) -> Finding:
    here = importlib.metadata.version(subject)
    if there == here:
        return ok(f"{subject} version", here)
    return warning(f"{subject} version", f"{here} here, {there} there", f"pip install {subject}=={there}")


def _skew(date: str | None) -> float:
    if not date:
        return 0.0
    return (parsedate_to_datetime(date) - datetime.now(UTC)).total_seconds() + 0.5  # the header has whole seconds
