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


class RegisteredRestorer(mlflow.pyfunc.PythonModel):
    """``ImageRestorer`` behind MLflow's interface."""

    def load_context(self, context: Any) -> None:
        """Load the weights from the model's artifacts."""
        self.restorer = ImageRestorer.from_folder(Path(context.artifacts["bundle"]))

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> list[Any]:
        """Return images, or the paths they were written to, one per row."""
        return [self._row(row) for row in model_input.to_dict("records")]

    def _row(self, row: dict[str, Any]) -> Any:
        given = {name: value for name, value in row.items() if isinstance(value, (str, list, np.ndarray))}
        output = _text(given["output"]) if "output" in given else ""
        if "path" in given:
            path, mask = _text(given["path"]), _text(given.get("mask", ""))
            return (
                self.restorer.restore_to_file(path, output, mask) if output else self.restorer.restore_file(path, mask)
            )
        if "image" in given:
            holes = np.asarray(given["mask"]) if "mask" in given else None
            image = self.restorer.restore(np.asarray(given["image"]), holes)
            return write_png(Clip([image]), output) if output else image
        raise InputError(f"each row needs `path` or `image`, got columns {sorted(row)}")


def _text(cell: Any) -> str:
    """Return the text of a cell. MLflow turns ``{"path": ["a"]}`` into one row whose cell is the list."""
    return str(cell if isinstance(cell, str) else cell[0])


set_model(RegisteredRestorer())
