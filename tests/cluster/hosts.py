"""Two test hosts on one machine: network namespaces joined by a veth pair, each with its own Ray node and home."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from tests.support.serving import BIN, wait_for

PORT, DASHBOARD = 6379, 8265
CABLE = "eth0"
"""Name of either end."""
HEALTHY_WITHIN_SECONDS = 90.0
QUICK_TO_MISS_A_NODE = {
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "3",
}
"""Of the head: as it comes, Ray takes a minute more, which these tests would spend waiting."""
ASK = """
import sys, urllib.request
request = urllib.request.Request(sys.argv[1], headers={"Authorization": "Bearer " + sys.argv[2]})
print(urllib.request.urlopen(request).read().decode())
"""
"""Run on a host: prints what a URL answers to a token."""


def why_not() -> str | None:
    """What is missing for namespaces on this machine, if anything."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if shutil.which("ip") is None:
        return "network namespaces need iproute2's `ip`"
    probe = f"ufprobe{os.getpid()}"
    try:
        for words in (
            ("netns", "add", probe),
            ("-n", probe, "link", "add", CABLE, "type", "veth", "peer", "name", "x"),
        ):
            made = subprocess.run(["ip", *words], capture_output=True, text=True)
            if made.returncode:
                return f"this machine makes no network namespaces with veth pairs: {made.stderr.strip()}"
    finally:
        subprocess.run(["ip", "netns", "del", probe], capture_output=True)
    return None


@dataclass(slots=True)
class Host:
    """A namespace with an address, and what was started in it."""

    name: str
    address: str
    home: Path
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def command(self, *words: str) -> list[str]:
        """The words, run on this host."""
        return ["ip", "netns", "exec", self.name, *words]

    def pids(self) -> list[int]:
        """Every process on this host."""
        listed = subprocess.run(["ip", "netns", "pids", self.name], capture_output=True, text=True)
        return [int(line) for line in listed.stdout.split()]

    def pids_of(self, title: str) -> list[int]:
        """Processes on this host whose command line begins with ``title``."""
        found = []
        for pid in self.pids():
            with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                if " ".join(psutil.Process(pid).cmdline()).startswith(title):
                    found.append(pid)
        return found


@dataclass(slots=True)
class TwoHosts:
    """A Ray cluster of two hosts with one CPU each, and a storage that both reach."""

    folder: Path
    first: Host
    second: Host
    token: str

    @property
    def environment(self) -> dict[str, str]:
        """Of a client on the first host."""
        outside = ("PREFECT", "MLFLOW", "RAY", "UNETFLOW", "XDG")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(outside)}
        return kept | {
            "HOME": str(self.first.home),
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "RAY_ADDRESS": f"{self.first.address}:{PORT}",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": self.token,
            "RAY_USAGE_STATS_ENABLED": "0",
            "GLOO_SOCKET_IFNAME": CABLE,
            **QUICK_TO_MISS_A_NODE,
            "UNETFLOW_CACHE": str(self.folder / "cache"),
            "UNETFLOW_STORAGE": str(self.folder / "storage"),
        }

    def start(self, host: Host, log: Path, *words: str) -> subprocess.Popen[bytes]:
        """Start a program on a host, in a session of its own."""
        environment = self.environment | {"HOME": str(host.home)}
        with log.open("wb") as stream:
            process = subprocess.Popen(
                host.command(*words), env=environment, stdout=stream, stderr=subprocess.STDOUT, start_new_session=True
            )
        host.processes.append(process)
        return process

    def unetflow(self, *arguments: str, storage: str = "storage") -> dict[str, Any]:
        """The command on the first host: its JSON record."""
        environment = self.environment | {"UNETFLOW_STORAGE": str(self.folder / storage)}
        command = self.first.command(str(BIN / "unetflow"), *arguments, "--json")
        done = subprocess.run(command, env=environment, cwd=self.folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-4000:]
        record: dict[str, Any] = json.loads(done.stdout)
        return record

    def start_ray(self) -> None:
        """A head on the first host, a node on the second."""
        shared = ["--num-cpus", "1", "--disable-usage-stats", "--block", "--object-store-memory", str(300 << 20)]
        head = [str(BIN / "ray"), "start", "--head", "--port", str(PORT), "--node-ip-address", self.first.address]
        head += ["--dashboard-host", self.first.address, "--temp-dir", str(self.folder / "r"), *shared]
        self.start(self.first, self.folder / "head.log", *head)
        self.wait_for_nodes(1)
        self.start_second()

    def start_second(self) -> None:
        """The second host's node; again after it was lost."""
        node = [str(BIN / "ray"), "start", "--address", f"{self.first.address}:{PORT}", "--num-cpus", "1"]
        node += ["--node-ip-address", self.second.address, "--block", "--object-store-memory", str(300 << 20)]
        node += ["--temp-dir", str(self.folder / "r2")]  # a host's own: Ray's nodes remove what others put there
        self.start(self.second, self.folder / "node.log", *node)
        self.wait_for_nodes(2)

    def drain(self, node_id: str, seconds: int) -> None:
        """Announce that a node will be taken away, as a cloud does."""
        words = [str(BIN / "ray"), "drain-node", "--address", f"{self.first.address}:{PORT}", "--node-id", node_id]
        words += ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "test"]
        words += ["--deadline-remaining-seconds", str(seconds)]
        subprocess.run(self.first.command(*words), env=self.environment, check=True, capture_output=True)

    def wait_for_nodes(self, count: int) -> None:
        """Until so many nodes live."""
        wait_for(
            lambda: sum(node["state"] == "ALIVE" for node in self.state("nodes")) == count,
            lambda: f"no {count} nodes: {(self.folder / 'head.log').read_text()[-2000:]}",
            HEALTHY_WITHIN_SECONDS,
        )

    def state(self, kind: str) -> list[dict[str, Any]]:
        """What the cluster's state API lists of ``nodes``, ``actors`` or ``tasks``."""
        url = f"http://{self.first.address}:{DASHBOARD}/api/v0/{kind}?limit=10000&detail=1"
        asked = subprocess.run(
            self.first.command(sys.executable, "-c", ASK, url, self.token), capture_output=True, text=True
        )
        if asked.returncode:
            return []
        rows: list[dict[str, Any]] = json.loads(asked.stdout)["data"]["result"]["result"]
        return rows

    def hosts_of(self, kind: str, name: str) -> set[str]:
        """Addresses of the hosts on which ``actors`` or ``tasks`` whose name or class holds ``name`` ran."""
        addresses = {node["node_id"]: node["node_ip"] for node in self.state("nodes")}
        return {
            addresses[row["node_id"]]
            for row in self.state(kind)
            if row.get("node_id") in addresses and name in f"{row.get('name')} {row.get('class_name')}"
        }

    def set_link(self, state: str) -> None:
        """``up`` or ``down``: the second host's end of the cable."""
        subprocess.run(self.second.command("ip", "link", "set", CABLE, state), check=True)


@contextmanager
def two_hosts() -> Iterator[TwoHosts]:
    """Namespaces, cable and Ray nodes for the length of the block; all that was started ends with it."""
    folder = Path(tempfile.mkdtemp(prefix="uf2-"))  # short: Ray's sockets lie below it
    names = [f"uf{os.getpid()}{letter}" for letter in "ab"]
    hosts = [Host(name, f"10.77.0.{number}", folder / f"home{number}") for number, name in enumerate(names, 1)]
    for host in hosts:
        host.home.mkdir()
        _ip("netns", "add", host.name)
    try:
        _ip("link", "add", "name", CABLE, "netns", names[0], "type", "veth", "peer", "name", CABLE, "netns", names[1])
        for host in hosts:
            for words in (("addr", "add", f"{host.address}/24", "dev", CABLE), ("link", "set", CABLE, "up")):
                subprocess.run(host.command("ip", *words), check=True)
            subprocess.run(host.command("ip", "link", "set", "lo", "up"), check=True)
        cluster = TwoHosts(folder, *hosts, secrets.token_hex(32))
        cluster.start_ray()
        yield cluster
    finally:
        for host in hosts:
            for pid in host.pids():  # ours alone: nothing else lives in these namespaces
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            for process in host.processes:
                process.wait()
            _ip("netns", "del", host.name)
        shutil.rmtree(folder, ignore_errors=True)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)
