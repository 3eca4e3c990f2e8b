"""Description of weights by the JSON files beside them: of a registered model, or of a pipeline of diffusers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from data_pipelines import storage
from data_pipelines.errors import WeightsError
from flows.registry.bundle import BUNDLE_FILE

PIPELINE_INDEX = "model_index.json"
"""File of a folder that diffusers' ``save_pretrained`` of a pipeline writes."""
PIPELINE_NETWORK = "unet"
PIPELINE_PARTS = {"scheduler": "scheduler/scheduler_config.json", "vae": "vae/config.json"}
"""Parts of a pipeline that its network is of no use without, and where their configurations are."""


def read_description(folder: str) -> Mapping[str, Any]:
    """Read what is said of the weights in a folder; empty where nothing is.

    Of a registered model it is the content of ``unetflow.json``; of a pipeline of diffusers, or the ``unet`` in it, the
    configurations of ``PIPELINE_PARTS`` by part. Raises WeightsError where a file is not JSON.
    """
    above, _, name = folder.rstrip("/").rpartition("/")
    for root in (folder, above) if name == PIPELINE_NETWORK else (folder,):
        if bundle := _read_json(storage.join(root, BUNDLE_FILE)):
            return bundle
        if storage.size(storage.join(root, PIPELINE_INDEX)) is not None:
            return {part: _read_json(storage.join(root, path)) for part, path in PIPELINE_PARTS.items()}
    return {}


def _read_json(uri: str) -> Mapping[str, Any]:
    """Read a JSON object; empty where there is no such file, or something else in it."""
    if storage.size(uri) is None:
        return {}
    try:
        content = json.loads(storage.read_bytes(uri))
    except ValueError as error:
        raise WeightsError(f"train.init: {uri} beside the weights is not JSON: {error}") from None
    return content if isinstance(content, dict) else {}
