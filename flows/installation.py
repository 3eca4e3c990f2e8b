"""Location and version of the installed code: the one place that turns a module's file into paths."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
from pathlib import Path

PACKAGES = ("data_pipelines", "unet_models", "flows")
"""Packages that make up the project: what a registered model and a submitted job carry."""
LOCK = "constraints.txt"
CODE_VARIABLE = "UNETFLOW_CODE"
"""Environment variable that names the commit in jobs, which run a copy without the history."""


def source_root() -> Path:
    """Return the folder that holds the packages: a checkout, a job's working folder, or site-packages."""
    import flows

    return Path(flows.__path__[0]).resolve().parent


def lock_file() -> Path | None:
    """Return the constraints file beside the code; None where the code is not a checkout."""
    path = source_root() / LOCK
    return path if path.is_file() else None


def code_version() -> str:
    """Return the commit of the checkout, with ``-changed`` where files differ from it, or the installed version."""
    if given := os.environ.get(CODE_VARIABLE):
        return given
    commit = _git("rev-parse", "HEAD")
    if not commit:
        return f"unetflow {importlib.metadata.version('unetflow')}"
    return f"{commit}-changed" if _git("status", "--porcelain", "--untracked-files=no") else commit


def _git(*arguments: str) -> str:
    """Return git's output for the checkout; empty where the code is not one."""
    root = source_root()
    if not (root / ".git").exists():
        return ""
    try:
        done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
