"""Held-out samples of a search, taken from the training samples: those of the final evaluation stay unseen."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from data_pipelines.errors import ConfigError
from data_pipelines.volumes.splits import draw_held_out


def inner_split(index: pa.Table, num_folds: int, seed: int) -> pa.Table:
    """Return the training samples alone, a fold of their subjects held out.

    Raises ConfigError where they are too few.
    """
    index = index.filter(pc.equal(index["split"], "train"))
    subjects = index["subject"].to_pylist()
    # An address of its own: with the seed of the outer split, the whole fold would be held out already.
    held_out = draw_held_out(set(subjects), 0, num_folds, f"search:{seed}")
    if not held_out or held_out == set(subjects):
        raise ConfigError(
            f"search: it holds out subjects of the training cases, and there are {len(set(subjects))}: at least 2 are "
            "needed"
        )
    split = pa.array(["val" if subject in held_out else "train" for subject in subjects])
    return index.set_column(index.schema.get_field_index("split"), "split", split)
