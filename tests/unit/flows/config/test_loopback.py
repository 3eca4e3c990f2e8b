"""This machine reaches itself: past the proxies of the environment, and by an address to listen on."""

from __future__ import annotations

import subprocess
import sys
import urllib.request

import pytest
from requests.utils import should_bypass_proxies

from flows.config.loopback import exempt_loopback

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


IN_NAMESPACE = ["unshare", "--net", "sh", "-c"]


@pytest.mark.skipif(subprocess.run([*IN_NAMESPACE, "true"], capture_output=True).returncode, reason="needs namespaces")
@pytest.mark.parametrize(
    ("before", "told"),
    [
        ("true", "Network is unreachable"),
        ("ip link set lo up && ip address del 127.0.0.1/8 dev lo", "Cannot assign requested address"),
        ("ip link set lo up", ""),
    ],
    ids=["down", "IPv6 alone", "up"],
)
def test_a_machine_without_a_loopback_address_is_told_what_to_do(before: str, told: str) -> None:
    """In a network namespace of its own, where the interface is down at first."""
    ask = "from flows.config.loopback import require_loopback; require_loopback()"
    words = [*IN_NAMESPACE, f'{before} && exec "$0" -c "{ask}"', sys.executable]
    done = subprocess.run(words, capture_output=True, text=True)
    if told:
        assert f"ConfigError: this machine has no 127.0.0.1 ({told}" in done.stderr
    else:
        assert (done.returncode, done.stderr) == (0, "")
