"""All checks, one after the other."""

from __future__ import annotations

from collections.abc import Iterator

from flows.config.pipeline import PipelineConfig
from flows.doctor import machine, servers
from flows.doctor.finding import Finding


def examine(config: PipelineConfig | None = None) -> Iterator[Finding]:
    """Yield every finding, good ones too; with a configuration also whether the cluster can run it."""
    yield from machine.check_versions()
    yield from machine.check_bytecode()
    yield from servers.check_prefect()
    yield from servers.check_mlflow()
    yield from servers.check_ray(config)
    yield from machine.check_storage(config)
    yield from machine.check_cpu(config)
    yield from machine.check_gpu(config)
    yield from machine.check_secrets()
