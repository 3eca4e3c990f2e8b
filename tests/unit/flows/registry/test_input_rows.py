"""Rows of a model's input, as MLflow hands them on."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from mlflow.models.utils import _enforce_schema

from data_pipelines.errors import InputError
from flows.pipelines.segmentation.register import signature
from flows.registry.input_rows import iter_rows


def test_each_text_of_a_list_is_a_row() -> None:
    """Through MLflow's own reading of the arguments, which makes one row of a dictionary of lists."""
    given = {"path": ["a.png", "b.png"], "output": ["1.png", "2.png"]}
    frame = _enforce_schema(given, signature().inputs)
    assert len(frame) == 1
    rows = [{"path": "a.png", "output": "1.png"}, {"path": "b.png", "output": "2.png"}]
    assert list(iter_rows(frame)) == rows
    assert list(iter_rows(pd.DataFrame(given))) == rows


def test_arrays_and_single_texts_stay_as_they_are() -> None:
    image = np.zeros((2, 3, 3))
    frame = pd.DataFrame({"image": [image, image.tolist()], "output": ["a.png", None], "seed": [3, np.nan]})
    first, second = iter_rows(frame)
    assert first.pop("image") is image
    assert first == {"output": "a.png", "seed": 3}
    assert second == {"image": image.tolist()}


def test_lists_of_different_lengths_are_refused() -> None:
    with pytest.raises(InputError, match="as many entries are needed in each column, got 2 of path, 1 of output"):
        list(iter_rows(pd.DataFrame({"path": [["a", "b"]], "output": [["c"]]})))
