"""Base class of a pipeline's configuration."""

from __future__ import annotations

from data_pipelines.specs import Spec
from flows.config.locations import storage_root
from flows.config.specs import ComputeSpec, NotifySpec, RegistrySpec


class PipelineConfig(Spec):
    """Settings that every pipeline has; each pipeline adds one group per stage."""

    pipeline: str
    """Name of the pipeline."""
    storage: str = ""
    """URI below which every stage keeps its outputs: a path, ``s3://`` or ``gs://``; empty (default):
    ``UNETFLOW_STORAGE``, else the user's state folder."""
    registry: RegistrySpec = RegistrySpec()
    """The registered model."""
    compute: ComputeSpec = ComputeSpec()
    """Resources and retries."""
    notify: NotifySpec = NotifySpec()
    """Notification of failures and new champions."""

    @property
    def storage_uri(self) -> str:
        """Absolute URI of the storage."""
        return storage_root(self.storage)

    def check_batch(self, stage: str, global_batch_size: int) -> None:
        """Raise ValueError where a global batch has fewer samples than there are workers."""
        if global_batch_size < self.compute.max_workers:
            raise ValueError(
                f"{stage}.global_batch_size ({global_batch_size}) is smaller than compute.num_workers "
                f"({self.compute.max_workers}): every worker needs at least one sample"
            )
