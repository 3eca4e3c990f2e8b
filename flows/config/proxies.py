"""Proxies of the environment must not stand between this machine and itself."""

from __future__ import annotations

import os

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
