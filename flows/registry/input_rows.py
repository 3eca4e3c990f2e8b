"""Rows of what a registered model is given."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from data_pipelines.errors import InputError


def iter_rows(model_input: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Iterate over the rows of a model's input, as name to cell, empty cells left out.

    MLflow turns ``{"path": ["a", "b"]}`` into one row whose cell is the list: it is two rows again here. Raises
    InputError where lists of one row have different lengths.
    """
    for row in model_input.to_dict("records"):
        given = {str(name): cell for name, cell in row.items() if not _is_missing(cell)}
        lists = {name: list(cell) for name, cell in given.items() if _holds_texts(cell)}
        counts = {len(texts) for texts in lists.values()}
        if len(counts) > 1:
            found = ", ".join(f"{len(texts)} of {name}" for name, texts in lists.items())
            raise InputError(f"as many entries are needed in each column, got {found}")
        if not lists:
            yield given
        for place in range(min(counts, default=0)):
            yield given | {name: texts[place] for name, texts in lists.items()}


def _is_missing(cell: Any) -> bool:
    return not isinstance(cell, list | np.ndarray) and bool(pd.isna(cell))


def _holds_texts(cell: Any) -> bool:
    return isinstance(cell, list | np.ndarray) and len(cell) > 0 and all(isinstance(text, str) for text in cell)
