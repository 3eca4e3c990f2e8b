"""What travels to the cluster with a job: this code, the resolved config and the lock; never data."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from data_pipelines.digests import digest_of
from flows.config.pipeline import Config
from flows.installation import VARIABLE, code_version

PACKAGES = ("data_pipelines", "unet_models", "flows")
CODE = (".py", ".yaml", ".j2")
CONFIG, LOCK = "pipeline.yaml", "constraints.txt"
FORWARDED = (
    "PREFECT_API_URL",
    "PREFECT_API_AUTH_STRING",
    "PREFECT_API_KEY",
    "MLFLOW_TRACKING_URI",
    "MLFLOW_TRACKING_USERNAME",
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_TOKEN",
    "MLFLOW_S3_ENDPOINT_URL",
    "AWS_ENDPOINT_URL",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_DEFAULT_REGION",
    "UNETFLOW_STORAGE",
    "UNETFLOW_DEBUG",
    "GLOO_SOCKET_IFNAME",
    "NCCL_SOCKET_IFNAME",
)
"""Variables a job needs to find servers and storage; those set here are set there. Whoever has the cluster's token can
read them: on a shared cluster, give its nodes credentials of their own instead."""


def forwarded_variables() -> dict[str, str]:
    """Those of ``FORWARDED`` that are set here."""
    return {name: os.environ[name] for name in FORWARDED if name in os.environ}


@contextmanager
def packed(config: Config | None) -> Iterator[Path]:
    """A folder with the code, the config if any and, in a checkout, the lock; equal input gives equal bytes."""
    source = Path(__file__).resolve().parents[2]
    with tempfile.TemporaryDirectory(prefix="unetflow-job-") as folder:
        target = Path(folder)
        for package in PACKAGES:
            for file in sorted((source / package).rglob("*")):
                if file.suffix in CODE:
                    copied = target / file.relative_to(source)
                    copied.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(file, copied)
        if (source / LOCK).is_file():
            shutil.copyfile(source / LOCK, target / LOCK)
        if config is not None:
            (target / CONFIG).write_text(yaml.safe_dump(_resolved(config), sort_keys=False))
        yield target


def _resolved(config: Config) -> dict[str, Any]:
    """The config with this machine's default storage written out, which may differ over there."""
    return config.model_dump(mode="json") | {"storage": config.storage_uri}


def digest_of_folder(folder: Path) -> str:
    """Identity of what was packed."""
    files = (file for file in sorted(folder.rglob("*")) if file.is_file())
    return digest_of([[str(file.relative_to(folder)), file.read_text()] for file in files])


def runtime_environment(folder: Path, variables: dict[str, str], *, install: bool) -> dict[str, Any]:
    """Ray's ``runtime_env`` of a job; ``install``: with the lock's versions, in an environment made for the job."""
    environment: dict[str, Any] = {
        "working_dir": str(folder),
        "env_vars": forwarded_variables() | {VARIABLE: code_version()} | variables,
    }
    if install:
        environment["pip"] = {"packages": ["-r ${RAY_RUNTIME_ENV_CREATE_WORKING_DIR}/" + LOCK]}
    return environment
