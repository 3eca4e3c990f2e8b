"""Package of a job: the code, the resolved configuration and the lock travel to the cluster, never data."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from data_pipelines.digests import digest_of
from data_pipelines.errors import ConfigError
from data_pipelines.temporary import temporary_folder
from flows.config.pipeline import PipelineConfig
from flows.installation import CODE_VARIABLE, LOCK, PACKAGES, code_version, lock_file, source_root

CODE_SUFFIXES = (".py", ".yaml", ".j2")
CONFIG = "pipeline.yaml"
INSTALL_VARIABLE = "UNETFLOW_INSTALL"
"""Variable of a pipeline's job that was submitted with ``--install``: its stages' jobs install the lock, too."""
FORWARDED = (
    "PREFECT_API_URL",
    "MLFLOW_TRACKING_URI",
    "MLFLOW_S3_ENDPOINT_URL",
    "AWS_ENDPOINT_URL",
    "AWS_DEFAULT_REGION",
    "UNETFLOW_STORAGE",
    "UNETFLOW_DEBUG",
    "UNETFLOW_VERIFY",
    "UNETFLOW_METRICS_PORT",
    "GLOO_SOCKET_IFNAME",
    "NCCL_SOCKET_IFNAME",
)
"""Variables a job needs to find servers and storage; those set here are set there. Never credentials: Ray logs them on
every node, and shows them on its dashboard."""
CREDENTIALS = (
    "PREFECT_API_AUTH_STRING",
    "PREFECT_API_KEY",
    "MLFLOW_TRACKING_USERNAME",
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_TOKEN",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
)
"""Variables that jobs use, too, as they are where Ray was started on the node."""


def forwarded_variables() -> dict[str, str]:
    """Return those of ``FORWARDED`` that are set here. Raises ConfigError where one holds a password."""
    found = {name: os.environ[name] for name in FORWARDED if name in os.environ}
    for name, value in found.items():
        if "://" in value and urlsplit(value).password:
            raise ConfigError(
                f"{name} holds a password, and Ray logs and shows the variables of a job: take it out of the address, "
                f"and set {', '.join(CREDENTIALS)}, as needed, where Ray is started on the nodes"
            )
        if value.startswith("sqlite:///") and not value.startswith("sqlite:////"):
            raise ConfigError(
                f"{name}={value} is a file below the working folder, and a job has another one, which Ray removes: "
                "name a server, or a file on a disk that all machines share as sqlite:////FOLDER/mlflow.db"
            )
    return found


@contextmanager
def packed(config: PipelineConfig | None, entry_module: str = "flows.cli") -> Iterator[Path]:
    """Yield a folder with the code, the configuration if any and, in a checkout, the lock.

    ``entry_module`` is what the job runs: its package travels too where it is not one of the project's. Equal input
    gives equal bytes.
    """
    source = source_root()
    with temporary_folder("job") as target:
        for package in PACKAGES:
            _copy_code(source, package, target)
        if entry_module.split(".")[0] not in PACKAGES:
            _copy_package(entry_module, target)
        if lock := lock_file():
            shutil.copyfile(lock, target / LOCK)
        if config is not None:
            (target / CONFIG).write_text(yaml.safe_dump(_resolved(config), sort_keys=False))
        yield target


def folder_digest(folder: Path) -> str:
    """Compute the identity of what was packed."""
    files = (file for file in sorted(folder.rglob("*")) if file.is_file())
    return digest_of([[str(file.relative_to(folder)), file.read_text()] for file in files])


def runtime_environment(folder: Path, variables: dict[str, str], *, install: bool) -> dict[str, Any]:
    """Build Ray's ``runtime_env`` of a job; ``install`` puts the lock's versions into an environment of its own."""
    environment: dict[str, Any] = {
        "working_dir": str(folder),
        "env_vars": forwarded_variables() | {CODE_VARIABLE: code_version()} | variables,
    }
    if install:
        environment["pip"] = {"packages": ["-r ${RAY_RUNTIME_ENV_CREATE_WORKING_DIR}/" + LOCK]}
    return environment


def _copy_package(name: str, target: Path) -> None:
    """Copy a user's own module, or the package that it is in, into the folder."""
    top = name.split(".")[0]
    found = importlib.util.find_spec(top)
    if found is None or found.origin is None:
        raise ConfigError(f"entry_module {name} cannot be imported, so it cannot travel with the job")
    if found.submodule_search_locations:
        _copy_code(Path(found.origin).parents[1], top, target)
    else:
        shutil.copyfile(found.origin, target / Path(found.origin).name)


def _copy_code(source: Path, package: str, target: Path) -> None:
    for file in sorted((source / package).rglob("*")):
        if file.suffix in CODE_SUFFIXES:
            copied = target / file.relative_to(source)
            copied.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copied)


def _resolved(config: PipelineConfig) -> dict[str, Any]:
    """Return the configuration with this machine's default storage written out, which may differ over there."""
    return config.model_dump(mode="json") | {"storage": config.storage_uri}
