"""Secrets and ports of the stack, and the variables of its clients."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Mapping
from pathlib import Path

from data_pipelines.atomic import atomic_file

LOOPBACK = "127.0.0.1"
PORTS = {
    "postgres": 5432,
    "mlflow": 5000,
    "prefect": 4200,
    "ray": 6379,
    "dashboard": 8265,
    "agent": 52365,  # of Ray, which starts jobs
}
"""Preferred port of each server; any free one where it is taken."""


def ensure_secrets(folder: Path) -> dict[str, str]:
    """Return the stack's secrets; generate and store those that are missing."""
    path = folder / "secrets.env"
    known = read_environment(path) if path.exists() else {}
    for name in ("POSTGRES_PASSWORD", "MLFLOW_PASSWORD", "MLFLOW_SECRET_KEY", "PREFECT_PASSWORD", "RAY_TOKEN"):
        known.setdefault(name, secrets.token_hex(32))
    write_environment(path, known)
    return known


def write_environment(path: Path, values: Mapping[str, str]) -> None:
    """``export NAME=value`` lines that nobody else may read; a full disk leaves the file that there was."""
    with atomic_file(path) as partial:
        partial.touch(0o600)
        partial.write_text("".join(f"export {name}='{value}'\n" for name, value in values.items()))


def read_environment(path: Path) -> dict[str, str]:
    """Read the file that ``write_environment`` wrote."""
    lines = path.read_text().splitlines()
    pairs = (line.removeprefix("export ").split("=", 1) for line in lines if line.startswith("export "))
    return {name: value.strip("'") for name, value in pairs}


def pick_ports() -> dict[str, int]:
    """Choose a free port for each server."""
    chosen: dict[str, int] = {}
    for name, port in PORTS.items():
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                probe.bind((LOOPBACK, 0))
            chosen[name] = probe.getsockname()[1]
    return chosen


def client_variables(secret: Mapping[str, str], ports: Mapping[str, int], storage: Path) -> dict[str, str]:
    """All that a client of the stack needs."""
    return {
        "RAY_ADDRESS": f"http://{LOOPBACK}:{ports['dashboard']}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secret["RAY_TOKEN"],
        "MLFLOW_TRACKING_URI": f"http://{LOOPBACK}:{ports['mlflow']}",
        "MLFLOW_TRACKING_USERNAME": "admin",
        "MLFLOW_TRACKING_PASSWORD": secret["MLFLOW_PASSWORD"],
        "PREFECT_API_URL": f"http://{LOOPBACK}:{ports['prefect']}/api",
        "PREFECT_API_AUTH_STRING": f"admin:{secret['PREFECT_PASSWORD']}",
        "UNETFLOW_STORAGE": str(storage),
    }
