"""Pipeline and reserved resources of a stage, for its run and its cost."""

from __future__ import annotations

from data_pipelines.specs import Spec
from flows.config.pipeline import PipelineConfig


class RunContext(Spec):
    """Pipeline that a stage belongs to, and the resources that it reserves. Nothing here changes its result."""

    pipeline: str = ""
    model: str = ""
    """Name of the registered model."""
    num_cpus: int = 1
    num_gpus: int = 0
    """GPUs that the stage reserves, if it uses any."""


NO_CONTEXT = RunContext()
"""Context of a stage that is computed by itself."""


def context_of(config: PipelineConfig) -> RunContext:
    """Return the context that a configuration describes."""
    compute = config.compute
    return RunContext(
        pipeline=config.pipeline,
        model=config.registry.name,
        num_cpus=compute.num_cpus,
        num_gpus=compute.max_workers if compute.use_gpu else 0,
    )
