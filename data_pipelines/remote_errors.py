"""Errors from another process as text: Ray wraps what an actor raises, and its type is lost."""

from __future__ import annotations

import json
from dataclasses import asdict

from data_pipelines.errors import (
    ConfigError,
    DataError,
    InputError,
    Problem,
    RegistryError,
    ServerError,
    TrainingDiverged,
    UserError,
    WeightsError,
)

_KINDS: dict[str, type[Exception]] = {
    kind.__name__: kind
    for kind in (ConfigError, InputError, RegistryError, ServerError, TrainingDiverged, WeightsError)
}


def pack_error(error: Exception) -> str:
    """Encode an error that a retry would only repeat."""
    if isinstance(error, DataError):
        return json.dumps({"kind": DataError.__name__, "problems": [asdict(problem) for problem in error.problems]})
    return json.dumps({"kind": type(error).__name__, "message": str(error)})


def unpack_error(text: str) -> Exception:
    """Decode what ``pack_error`` wrote, to be raised; a kind of another version becomes a ``UserError``."""
    values = json.loads(text)
    if values["kind"] == DataError.__name__:
        return DataError([Problem(**problem) for problem in values["problems"]])
    return _KINDS.get(values["kind"], UserError)(values["message"])
