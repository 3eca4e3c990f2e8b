"""The registered restoration model: MLflow runs this file and calls ``predict`` (models from code).

Input, one row per image:
    path     an image file     or
    image    an array (height, width, 3), or (height, width) for grey, of values 0..255, as nested lists or NumPy
    mask     for inpainting: a file that is white where pixels are to be filled, or beside ``image`` an array (height,
             width) that is not 0 there; without one the transparent pixels of the file are filled
    output   optional: where to write the image (.png, animated for several frames); the row's result is then this path
Result: one image (height, width, 3) uint8, or path, per row; of a file of several frames (frames, height, width, 3).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow.pyfunc
import numpy as np
import pandas as pd
from mlflow.models import set_model

from data_pipelines.errors import InputError
from flows.pipelines.restoration.image_restorer import Clip, ImageRestorer, write_png
from flows.registry.bundle import BUNDLE_ARTIFACT
from flows.registry.input_rows import iter_rows


class RegisteredRestorer(mlflow.pyfunc.PythonModel):
    """``ImageRestorer`` behind MLflow's interface."""

    def load_context(self, context: Any) -> None:
        """Load the weights from the model's artifacts."""
        self.restorer = ImageRestorer.from_folder(Path(context.artifacts[BUNDLE_ARTIFACT]))

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> list[Any]:
        """Return images, or the paths they were written to, one per row."""
        return [self._restore(row) for row in iter_rows(model_input)]

    def _restore(self, given: dict[str, Any]) -> Any:
        """Restore the image of a row."""
        output, mask = given.get("output", ""), given.get("mask", "")
        if "path" in given:
            path = given["path"]
            if not isinstance(mask, str):
                raise InputError("mask: must be a path where the image is one; give both as arrays, or both as paths")
            return (
                self.restorer.restore_to_file(path, output, mask) if output else self.restorer.restore_file(path, mask)
            )
        if "image" in given:
            image = self.restorer.restore(_image(given["image"]), np.asarray(mask) if "mask" in given else None)
            return write_png(Clip([image]), output) if output else image
        raise InputError(f"each row needs `path` or `image`, got columns {sorted(given)}")


def _image(cell: Any) -> np.ndarray:
    """Return the array of a cell. Raises InputError for a row of pixels: MLflow cuts an array that is in no list."""
    image = np.asarray(cell)
    if image.ndim == 2 and image.shape[1] == 3:
        raise InputError(
            f"`image` has the shape {image.shape} of a row of pixels: put the array into a list, {{'image': [array]}}"
        )
    return image


set_model(RegisteredRestorer())
