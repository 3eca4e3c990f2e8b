"""What may be wrong with an installation, its servers, storage and machine, and the commands that mend it."""

from __future__ import annotations

from collections.abc import Iterator

from flows.config.pipeline import Config
from flows.doctor import machine, servers
from flows.doctor.finding import Finding


def examine(config: Config | None = None) -> Iterator[Finding]:
    """Every finding, good ones too; with a config also whether the cluster can hold it."""
    yield from machine.check_versions()
    yield from servers.check_prefect()
    yield from servers.check_mlflow()
    yield from servers.check_ray(config)
    yield from machine.check_storage(config)
    yield from machine.check_gpu(config)
    yield from machine.check_secrets()
