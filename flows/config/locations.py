"""Default folders for storage and state."""

from __future__ import annotations

import os
from pathlib import Path

from data_pipelines.errors import ConfigError
from data_pipelines.storage import home_folder


def state_folder() -> Path:
    """Return this user's state folder: below ``XDG_STATE_HOME``, by default ``~/.local/state``."""
    return Path(os.environ.get("XDG_STATE_HOME") or home_folder() / ".local" / "state") / "unetflow"


def writable_folder(folder: Path, variables: str) -> Path:
    """Return the folder, made where it is missing. Raises ConfigError, naming ``variables``, where it is read-only."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        is_writable = os.access(folder, os.W_OK | os.X_OK)
    except OSError:
        is_writable = False
    if not is_writable:
        raise ConfigError(f"{folder} cannot be written to: set {variables} to a folder that can")
    return folder


def storage_root(configured: str = "") -> str:
    """Return the absolute URI of the storage: as configured, else ``UNETFLOW_STORAGE``, else the state folder."""
    uri = configured or os.environ.get("UNETFLOW_STORAGE") or str(state_folder())
    return uri if "://" in uri else str(Path(uri).expanduser().absolute())
