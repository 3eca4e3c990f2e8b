"""The registered text-to-image model: MLflow runs this file and calls ``predict`` (models from code).

Input, one row per image:
    prompt                the caption
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
from typing import Any, TypeVar

import mlflow.pyfunc
import numpy as np
import pandas as pd
from mlflow.models import set_model
from PIL import Image

from data_pipelines.errors import InputError
from flows.pipelines.diffusion.text_to_image import TextToImage
from unet_models.specs.diffusion import ImageRequest, SampleSpec

T = TypeVar("T")


class RegisteredTextToImage(mlflow.pyfunc.PythonModel):
    """``TextToImage`` behind MLflow's interface."""

    def load_context(self, context: Any) -> None:
        """Load the model folder from the model's artifacts."""
        self.model = TextToImage(Path(context.artifacts["bundle"]))

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> list[Any]:
        """Return images, or the paths they were written to, one per row. Rows of equal step counts go together."""
        rows = [
            {name: value for name, value in row.items() if not pd.isna(value)} for row in model_input.to_dict("records")
        ]
        for row in rows:
            if not row.get("output", "x.png").lower().endswith(".png"):
                raise InputError(f"output must end in .png, got {row['output']!r}")
        default = self.model.bundle.sample
        steps = [_whole_number(row, "num_inference_steps", default.num_inference_steps) for row in rows]
        images: dict[int, np.ndarray] = {}
        for count in sorted(set(steps)):
            chosen = [i for i, of_row in enumerate(steps) if of_row == count]
            spec = SampleSpec.model_validate(default.model_dump() | {"num_inference_steps": count})
            drawn = self.model.draw([self._request(rows[i]) for i in chosen], spec)
            images |= zip(chosen, drawn, strict=True)
        return [_deliver(images[i], row) for i, row in enumerate(rows)]

    def _request(self, row: dict[str, Any]) -> ImageRequest:
        if "prompt" not in row:
            raise InputError(f"each row needs `prompt`, got columns {sorted(row)}")
        return ImageRequest(
            prompt=str(row["prompt"]),
            seed=_whole_number(row, "seed", 0),
            guidance_scale=float(row.get("guidance_scale", self.model.bundle.sample.guidance_scale)),
            negative_prompt=str(row.get("negative_prompt", "")),
            width=_whole_number(row, "width", None),
            height=_whole_number(row, "height", None),
        )


def _whole_number(row: dict[str, Any], name: str, default: T) -> int | T:
    """Return the whole number in a column, which may be a double where another row has none; ``default`` where the
    row has none."""
    if name not in row:
        return default
    if float(row[name]) != int(row[name]):
        raise InputError(f"{name} must be a whole number, got {row[name]}")
    return int(row[name])


def _deliver(image: np.ndarray, row: dict[str, Any]) -> Any:
    if "output" not in row:
        return image
    Path(row["output"]).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(row["output"])
    return row["output"]


set_model(RegisteredTextToImage())
