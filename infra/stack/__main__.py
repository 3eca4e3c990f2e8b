"""Start the servers, print where they are, and stop all of them on Ctrl-C.

Secrets are generated once and lie, with the addresses, in ``stack.env`` (mode 0600) of the folder.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from data_pipelines.errors import ConfigError
from flows.cluster.folders import stack_folder
from flows.config.locations import private_folder
from infra.stack.servers import mlflow, postgres, prefect_server, prefect_worker, ray
from infra.stack.service import Service, StackError, end_of, stop, watch
from infra.stack.variables import client_variables, ensure_secrets, pick_ports, write_environment


def make_automation(log: Path, clients: Mapping[str, str]) -> None:
    """Make Prefect's rule for runs whose process died. Raises StackError with the end of its log."""
    with log.open("wb") as stream:
        made = subprocess.run(
            [sys.executable, "-m", "flows.running.schedule"],
            env=os.environ | dict(clients),
            cwd=Path(__file__).parents[2],
            stdout=stream,
            stderr=subprocess.STDOUT,
            check=False,
        )
    if made.returncode:
        raise StackError(f"Prefect's rule for dead runs could not be made; {end_of(log)}")


@contextmanager
def run_stack(folder: Path, say: Callable[[str], None] = print) -> Iterator[tuple[list[Service], dict[str, str]]]:
    """Run the stack for the length of the block; yield its services and the variables of their clients."""
    private_folder(folder)
    logs = folder / "logs"
    logs.mkdir(exist_ok=True)
    (folder / "stack.env").unlink(missing_ok=True)  # of a stack that was killed
    secret, ports = ensure_secrets(folder), pick_ports()
    clients = client_variables(secret, ports, folder / "storage")
    services = [
        postgres(folder, ports["postgres"], secret),
        mlflow(folder, ports, secret),
        prefect_server(folder, ports, secret),
        prefect_worker(folder, clients),
        ray(folder, ports, secret, clients),
    ]
    try:
        for service in services:
            started = time.monotonic()
            service.start(logs / f"{service.name}.log")
            say(f"{service.name:<15} healthy after {time.monotonic() - started:.0f} s")
        make_automation(logs / "automation.log", clients)
        write_environment(folder / "stack.env", clients)
        yield services, clients
    finally:
        (folder / "stack.env").unlink(missing_ok=True)
        stop(reversed(services))


def main() -> None:
    """``make stack``."""
    parser = argparse.ArgumentParser(
        prog="make stack", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, default=stack_folder(), help="data, logs and secrets")
    folder = parser.parse_args().folder.absolute()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # a shell's background jobs ignore SIGINT otherwise
        signal.signal(number, signal.default_int_handler)
    try:
        with run_stack(folder) as (services, clients):
            print(_welcome(folder, clients), flush=True)
            watch(services)
    except (StackError, ConfigError) as error:
        sys.exit(f"stack: {error}")
    except KeyboardInterrupt:
        print("stopped")


def _welcome(folder: Path, clients: Mapping[str, str]) -> str:
    return "\n".join(
        [
            "",
            f"Prefect   {clients['PREFECT_API_URL'].removesuffix('/api')}   (auth string: PREFECT_API_AUTH_STRING)",
            f"MLflow    {clients['MLFLOW_TRACKING_URI']}   (admin, MLFLOW_TRACKING_PASSWORD)",
            f"Ray       {clients['RAY_ADDRESS']}   (token: RAY_AUTH_TOKEN)",
            "",
            f"in another shell:   source {folder / 'stack.env'}",
            "                    unetflow doctor",
            "                    unetflow submit CONFIG.yaml --follow",
            "Ctrl-C stops everything",
        ]
    )


if __name__ == "__main__":
    main()
