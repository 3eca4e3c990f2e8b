"""The registered text-to-image model: MLflow runs this file and calls ``predict`` (models from code).

Input, one row per image:
    prompt                the caption; of a model without text: absent
    class                 optional, of a model with classes: the name of the class
    image                 optional, of a model that draws from an image: its path, or an array (height, width, 3 or 4)
                          uint8; a model that fills holes draws what is transparent
    negative_prompt       optional: what the image should not show
    seed                  optional, 0 if absent: the same seed gives the same image
    num_inference_steps   optional: as evaluated if absent
    guidance_scale        optional: as evaluated if absent
    width, height         optional, in pixels: as trained if absent
    output                optional: where to write the image (.png); the row's result is then this path
Result: one image (height, width, 3) uint8, or path, per row.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow.pyfunc
import numpy as np
import pandas as pd
from mlflow.models import set_model
from PIL import Image

from data_pipelines.errors import InputError
from flows.pipelines.diffusion.image_condition import read_image
from flows.pipelines.diffusion.requests import read_request, whole_number
from flows.pipelines.diffusion.text_to_image import TextToImage
from flows.registry.bundle import BUNDLE_ARTIFACT
from flows.registry.input_rows import iter_rows
from unet_models.specs.diffusion import SampleSpec


class RegisteredTextToImage(mlflow.pyfunc.PythonModel):
    """``TextToImage`` behind MLflow's interface."""

    def load_context(self, context: Any) -> None:
        """Load the model folder from the model's artifacts."""
        self.model = TextToImage(Path(context.artifacts[BUNDLE_ARTIFACT]))

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> list[Any]:
        """Return images, or the paths they were written to, one per row. Rows of equal step counts go together."""
        rows = list(iter_rows(model_input))
        for row in rows:
            if not row.get("output", "x.png").lower().endswith(".png"):
                raise InputError(f"output must end in .png, got {row['output']!r}")
        default = self.model.bundle.sample
        steps = [whole_number(row, "num_inference_steps", default.num_inference_steps) for row in rows]
        images: dict[int, np.ndarray] = {}
        for count in sorted(set(steps)):
            chosen = [i for i, of_row in enumerate(steps) if of_row == count]
            spec = SampleSpec.model_validate(default.model_dump() | {"num_inference_steps": count})
            given = [read_image(rows[i]["image"]) if "image" in rows[i] else None for i in chosen]
            drawn = self.model.draw([read_request(rows[i], self.model) for i in chosen], spec, given)
            images |= zip(chosen, drawn, strict=True)
        return [_deliver(images[i], row) for i, row in enumerate(rows)]


def _deliver(image: np.ndarray, row: dict[str, Any]) -> Any:
    if "output" not in row:
        return image
    Path(row["output"]).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(row["output"])
    return row["output"]


set_model(RegisteredTextToImage())
