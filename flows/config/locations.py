"""Default folders for storage and state."""

from __future__ import annotations

import os
from pathlib import Path


def state_folder() -> Path:
    """Return this user's state folder: below ``XDG_STATE_HOME``, by default ``~/.local/state``."""
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "unetflow"


def storage_root(configured: str = "") -> str:
    """Return the absolute URI of the storage: as configured, else ``UNETFLOW_STORAGE``, else the state folder."""
    uri = configured or os.environ.get("UNETFLOW_STORAGE") or str(state_folder())
    return uri if "://" in uri else str(Path(uri).expanduser().absolute())
