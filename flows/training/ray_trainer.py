"""Ray's trainer without the helpers that no training here uses: each is a process that imports Ray for seconds."""

from __future__ import annotations

from typing import Any

from ray.train.torch import TorchTrainer

UNUSED = {
    # Starts an actor that hands out datasets of Ray Data; trainings here read shards themselves.
    "DatasetsCallback",
    # Starts an actor that asks Ray's dashboard, time and again, whether the controller lives, and frees what it had
    # reserved if it died; here the stage's process does, which is told of it (free_reservations).
    "PlacementGroupCleanerCallback",
}
"""Names of Ray's helpers."""


class RayTrainer(TorchTrainer):
    """A ``TorchTrainer`` that starts fewer actors."""

    def _create_default_callbacks(self) -> list[Any]:
        # Not a public method: where a later Ray does without it, its helpers come back.
        return [each for each in super()._create_default_callbacks() if type(each).__name__ not in UNUSED]
