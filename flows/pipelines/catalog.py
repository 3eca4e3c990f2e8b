"""The pipelines there are. A pipeline defined elsewhere adds itself to ``PIPELINES`` before the command line runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from flows.config.load import read_config
from flows.config.pipeline import PipelineConfig
from flows.pipelines.diffusion.pipeline import DIFFUSION
from flows.pipelines.restoration.pipeline import RESTORATION
from flows.pipelines.segmentation.pipeline import SEGMENTATION
from flows.stages.pipeline import Pipeline

PIPELINES: dict[str, Pipeline] = {pipeline.name: pipeline for pipeline in (SEGMENTATION, DIFFUSION, RESTORATION)}


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> PipelineConfig:
    """Read a YAML file with ``a.b=value`` overrides; its field ``pipeline`` chooses the pipeline.

    Raises ConfigError naming the file, the field and the rule.
    """
    return read_config(path, overrides, {name: pipeline.config for name, pipeline in PIPELINES.items()})


def pipeline_of(config: PipelineConfig) -> Pipeline:
    """Return the pipeline that a configuration belongs to."""
    return PIPELINES[config.pipeline]
