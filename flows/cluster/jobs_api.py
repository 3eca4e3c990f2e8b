"""Client of a cluster's Jobs API: its address, its token, and the check that both sides run the same versions."""

from __future__ import annotations

import ipaddress
import logging
import os
import platform
import re
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

from data_pipelines.errors import ConfigError, ServerError
from data_pipelines.storage import home_folder
from flows.config.environment import environment

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

logger = logging.getLogger(__name__)

AUTO = "auto"
"""Address of the cluster that this process is a job of."""
RETRY_SECONDS = 300.0
"""Time for which a cluster may be unreachable before following a job fails."""

T = TypeVar("T")
_SESSION = re.compile(r"session_(\d{4}-\d\d-\d\d)_(\d\d-\d\d-\d\d)_")


def jobs_address() -> str | None:
    """Return where stages run as jobs: ``RAY_ADDRESS`` if HTTP, or what ``submit`` says; None: they run here."""
    if address := os.environ.get("UNETFLOW_JOBS_ADDRESS"):
        return address
    address = os.environ.get("RAY_ADDRESS", "")
    return address if address.startswith(("http://", "https://")) else None


def is_job() -> bool:
    """Tell whether this process is a job of a cluster."""
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ


def connect(address: str) -> JobSubmissionClient:
    """Connect to the cluster at ``address`` (``http://HOST:8265``, or ``auto`` inside a job).

    Raises ConfigError where the address is not a URL or no token is set; ServerError where nothing answers, the token
    is refused, or the versions of Ray or Python differ.
    """
    if address != AUTO:
        _check_url(address)
        _check_token(address)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    for name in ("ray", "ray.dashboard.modules.job.sdk", "ray.dashboard.modules.dashboard_sdk"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # Ray lets RAY_ADDRESS overrule the argument, but not this variable.
    try:
        with environment({} if address == AUTO else {"RAY_API_SERVER_ADDRESS": address}):
            client = JobSubmissionClient(None if address == AUTO else address)
        _check_versions(client, address)
    except AuthenticationError:
        raise ServerError(
            f"{address}: the cluster refused the token; set RAY_AUTH_TOKEN to the cluster's own "
            f"({'it is set, and wrong' if os.environ.get('RAY_AUTH_TOKEN') else 'it is missing'})"
        ) from None
    except ConnectionError:
        raise ServerError(
            f"{address}: no Ray dashboard answers; start one with `ray start --head`, or forward its port 8265 to here"
        ) from None
    return client


def head_start(client: JobSubmissionClient) -> str:
    """Return when the cluster's head was started, by its own clock, as ``2026-01-31 12:00:00``; empty if unknown."""
    answer = client._do_request("GET", "/api/version")
    session = str(answer.json().get("session_name", "")) if answer.ok else ""
    found = _SESSION.match(session)
    return f"{found[1]} {found[2].replace('-', ':')}" if found else ""


def retry_connection(call: Callable[[], T], doing: str) -> T:
    """Return the call's result, retrying while the connection breaks; after ``RETRY_SECONDS`` raise its error."""
    import requests

    since = time.monotonic()
    delay = 1.0
    while True:
        try:
            return call()
        except (ConnectionError, requests.RequestException) as error:
            if time.monotonic() - since > RETRY_SECONDS:
                raise
            logger.warning("%s: the cluster is unreachable, retrying (%s)", doing, type(error).__name__)
            time.sleep(delay)
            delay = min(delay * 2, 15.0)


def is_loopback(address: str) -> bool:
    """Tell whether the URL's host is this machine."""
    host = urlsplit(address).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _check_url(address: str) -> None:
    if urlsplit(address).scheme not in ("http", "https") or not urlsplit(address).hostname:
        raise ConfigError(f"{address}: jobs go to the dashboard's URL; write it as http://HOST:8265")


def _check_token(address: str) -> None:
    named = os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH")
    if named or (home_folder() / ".ray" / "auth_token").is_file():
        os.environ.setdefault("RAY_AUTH_MODE", "token")  # without it Ray's client does not send the token
    elif not is_loopback(address):
        raise ConfigError(
            f"{address}: an open cluster runs anybody's code, and this is not loopback: set RAY_AUTH_TOKEN (the "
            "cluster's token; `ray get-auth-token` on its head prints it)"
        )
    if urlsplit(address).scheme == "http" and not is_loopback(address):
        logger.warning("%s: the token travels unencrypted; put TLS before the dashboard, or use a tunnel", address)


def _check_versions(client: JobSubmissionClient, address: str) -> None:
    """Ray refuses what another Ray or Python pickled, but only after everything was sent."""
    import ray

    answer = client._do_request("GET", "/api/v0/cluster_metadata")
    there = answer.json()["data"] if answer.ok else {"rayVersion": client.get_version()}
    here = {"Ray": ray.__version__, "Python": platform.python_version()}
    other = {"Ray": there.get("rayVersion"), "Python": there.get("pythonVersion")}
    wrong = [f"{name} {here[name]} here, {other[name]} there" for name in here if other[name] not in (here[name], None)]
    if wrong:
        raise ServerError(
            f"{address}: versions differ: {'; '.join(wrong)}. Nothing was sent; use the cluster's versions"
        )
