"""The registered segmentation model: MLflow runs this file and calls ``predict`` (models from code).

Input, one row per case:
    path     a file; of several channels in files of their own their paths with "|" between     or
    image    an array (C, *spatial), or (*spatial) for one channel, as nested lists or NumPy
    text     optional, for models that read one: a UTF-8 file
    sound    optional, for models that read one: a WAV file
    output   optional: where to write the label map, as NIfTI or .png; the row's result is then this path
Parameters, all optional:
    memory_gb      memory in GB that the prediction of an image may take; default: as the model was registered
    probabilities  true: also the calibrated probabilities, (*spatial, K) float32, background first
    uncertainty    true: also their entropy in 0..1, and of several networks their disagreement in 0..1, (*spatial)
Result: one label map (*spatial) or path per row, in the input's own geometry and the values of the label files that the
model was trained on; of classes that are colours (*spatial, 3). With maps it is a dictionary: ``labels``,
``probabilities``, ``uncertainty``, ``disagreement``; or, with ``output``, their paths beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import numpy as np
import pandas as pd
from mlflow.models import set_model

from data_pipelines.errors import InputError
from data_pipelines.volumes.modalities import Modalities
from flows.pipelines.segmentation.maps import MapName, find_maps, map_path
from flows.pipelines.segmentation.reading import read_array, read_files
from flows.pipelines.segmentation.segmenter import Segmenter
from flows.registry.bundle import BUNDLE_ARTIFACT
from flows.registry.input_rows import iter_rows


class RegisteredSegmenter(mlflow.pyfunc.PythonModel):
    """``Segmenter`` behind MLflow's interface."""

    def load_context(self, context: Any) -> None:
        """Load the weights from the model's artifacts."""
        self.segmenter = Segmenter.from_folder(Path(context.artifacts[BUNDLE_ARTIFACT]))

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> list[Any]:
        """Return label maps, or the paths they were written to, one per row."""
        wanted = params or {}
        memory_gb = wanted.get("memory_gb")
        segmenter = self.segmenter if memory_gb is None else self.segmenter.within(memory_gb)
        asked = {name: bool(wanted.get(name)) for name in ("probabilities", "uncertainty")}
        names = find_maps(segmenter.bundle.num_networks, **asked)
        return [_segment(segmenter, row, names) for row in iter_rows(model_input)]


def _segment(segmenter: Segmenter, given: dict[str, Any], names: Sequence[MapName]) -> Any:
    """Segment the case of a row."""
    beside = Modalities.read(*(given.get(name, "") for name in ("text", "sound")))
    if "path" in given:
        paths = given["path"].split("|")
        if "output" in given:
            output = segmenter.segment_to_file(paths, given["output"], beside, names)
            maps = {name: str(map_path(output, name)) for name in names}
            return {"labels": output, **maps} if maps else output
        ready = read_files(segmenter.bundle, paths)
    elif "image" in given:
        ready = read_array(segmenter.bundle, np.asarray(given["image"], dtype=np.float32))
    else:
        raise InputError(f"each row needs `path` or `image`, got columns {sorted(given)}")
    found = segmenter.segment_with_maps(ready, names, beside)
    return found if names else found["labels"]


set_model(RegisteredSegmenter())
