"""This machine must reach itself: no proxy stands in between, and there is a loopback address to listen on."""

from __future__ import annotations

import os
import socket

from data_pipelines.errors import ConfigError

PROXIES = ("http_proxy", "https_proxy", "all_proxy")
LOOPBACK = ("localhost", "127.0.0.1", "::1")


def exempt_loopback() -> None:
    """Add this machine to ``no_proxy`` where a proxy is set: no proxy reaches a server that listens on loopback."""
    if not any(os.environ.get(name) or os.environ.get(name.upper()) for name in PROXIES):
        return
    given = ",".join(filter(None, (os.environ.get("no_proxy"), os.environ.get("NO_PROXY"))))
    hosts = [host.strip() for host in given.split(",") if host.strip()]
    if "*" in hosts:
        return
    exempt = ",".join(dict.fromkeys([*hosts, *LOOPBACK]))
    os.environ["no_proxy"] = os.environ["NO_PROXY"] = exempt  # libraries read one or the other


def require_loopback() -> None:
    """Raise ConfigError where nothing is reached on 127.0.0.1, as Prefect's temporary server and a local Ray are."""
    try:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            socket.create_connection(probe.getsockname(), timeout=10).close()
    except OSError as error:
        raise ConfigError(
            f"this machine has no 127.0.0.1 ({error.strerror}), where the servers of a run listen; if loopback is "
            "down, or IPv6 alone: `ip link set lo up`, `ip address add 127.0.0.1/8 dev lo`"
        ) from None
