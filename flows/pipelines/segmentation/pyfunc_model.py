"""The registered segmentation model: MLflow runs this file and calls ``predict`` (models from code).

Input, one row per case:
    path     a file; for several channels in files of their own a list of them, or one text with "|" between     or
    image    an array (C, *spatial), or (*spatial) for one channel, as nested lists or NumPy
    text     optional, for models that read one: a UTF-8 file
    sound    optional, for models that read one: a WAV file
    output   optional: where to write the label map, as NIfTI or .png; the row's result is then this path
Parameter:
    memory_gb  optional: memory in GB that the prediction of an image may take; default: as the model was registered
Result: one label map (*spatial) or path per row, in the input's own geometry and the values of the label files that the
model was trained on; of classes that are colours (*spatial, 3).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow.pyfunc
import numpy as np
import pandas as pd
from mlflow.models import set_model

from data_pipelines.errors import InputError
from data_pipelines.volumes.modalities import Modalities
from flows.pipelines.segmentation.segmenter import Segmenter


class RegisteredSegmenter(mlflow.pyfunc.PythonModel):
    """``Segmenter`` behind MLflow's interface."""

    def load_context(self, context: Any) -> None:
        """Load the weights from the model's artifacts."""
        self.segmenter = Segmenter.from_folder(Path(context.artifacts["bundle"]))

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> list[Any]:
        """Return label maps, or the paths they were written to, one per row."""
        memory_gb = (params or {}).get("memory_gb")
        segmenter = self.segmenter if memory_gb is None else self.segmenter.within(memory_gb)
        return [_segment(segmenter, row) for row in model_input.to_dict("records")]


def _segment(segmenter: Segmenter, row: dict[str, Any]) -> Any:
    """Segment the case of a row."""
    given = {name: value for name, value in row.items() if isinstance(value, (str, list, np.ndarray))}
    beside = Modalities.read(*(_texts(given[name])[0] if name in given else "" for name in ("text", "sound")))
    if "path" in given:
        paths = _texts(given["path"])
        if "output" in given:
            return segmenter.segment_to_file(paths, _texts(given["output"])[0], beside)
        return segmenter.label_files(paths, beside)
    if "image" in given:
        return segmenter.segment(np.asarray(given["image"], dtype=np.float32), given=beside)
    raise InputError(f"each row needs `path` or `image`, got columns {sorted(row)}")


def _texts(cell: str | list[str] | np.ndarray) -> list[str]:
    """Split a cell at "|". MLflow turns ``{"path": ["a"]}`` into one row whose cell is the list."""
    texts = [cell] if isinstance(cell, str) else list(cell)
    return [part for text in texts for part in text.split("|")]


set_model(RegisteredSegmenter())
