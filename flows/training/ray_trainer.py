"""Ray's trainer without the helpers that no training here uses: each is a process that imports Ray for seconds."""

from __future__ import annotations

from typing import Any

from ray.train.torch import TorchTrainer

DATASETS = "DatasetsCallback"
"""Starts an actor that hands out datasets of Ray Data; trainings here read shards themselves."""
RESERVATIONS = "PlacementGroupCleanerCallback"
"""Starts an actor that frees what a controller had reserved that died while its job goes on. It asks Ray's dashboard,
time and again, whether the controller lives."""


class RayTrainer(TorchTrainer):
    """A ``TorchTrainer`` that starts fewer actors; those that ask the dashboard only where there is one."""

    def __init__(self, *args: Any, has_api_server: bool, **options: Any) -> None:
        """Take the arguments of ``TorchTrainer``."""
        super().__init__(*args, **options)
        self._unused = {DATASETS} if has_api_server else {DATASETS, RESERVATIONS}

    def _create_default_callbacks(self) -> list[Any]:
        # Not a public method: where a later Ray does without it, its helpers come back.
        return [each for each in super()._create_default_callbacks() if type(each).__name__ not in self._unused]
