"""A proxy of the environment is not asked for servers of this machine."""

from __future__ import annotations

import urllib.request

import pytest
from requests.utils import should_bypass_proxies

from flows.config.proxies import exempt_loopback

NAMES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        for spelled in (name, name.upper()):
            monkeypatch.setenv(spelled, "")  # restored afterwards, whatever the function sets
            monkeypatch.delenv(spelled)


@pytest.mark.parametrize("name", ["http_proxy", "HTTPS_PROXY", "all_proxy"])
def test_loopback_is_exempt_beside_what_was(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "http://proxy.example.org:3128")
    monkeypatch.setenv("NO_PROXY", "example.com, 10.0.0.1")
    exempt_loopback()
    for host in ("localhost", "127.0.0.1", "example.com", "10.0.0.1"):
        assert urllib.request.proxy_bypass_environment(host)
        assert should_bypass_proxies(f"http://{host}:5000/api", no_proxy=None)
    assert not urllib.request.proxy_bypass_environment("example.org")


def test_without_a_proxy_nothing_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    exempt_loopback()
    assert urllib.request.getproxies_environment() == {}


def test_all_hosts_exempt_stay_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://proxy.example.org:3128")
    monkeypatch.setenv("no_proxy", "*")
    exempt_loopback()
    assert urllib.request.getproxies_environment()["no"] == "*"
