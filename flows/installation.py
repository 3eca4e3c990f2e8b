"""Which code this is: what a registered version says it was made by."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
from pathlib import Path

VARIABLE = "UNETFLOW_CODE"
"""Says it to jobs, which run a copy without its history."""


def code_version() -> str:
    """Commit of the checkout (``-changed`` where files differ from it), else the installed version."""
    if told := os.environ.get(VARIABLE):
        return told
    commit = _git("rev-parse", "HEAD")
    if not commit:
        return f"unetflow {importlib.metadata.version('unetflow')}"
    return f"{commit}-changed" if _git("status", "--porcelain", "--untracked-files=no") else commit


def _git(*arguments: str) -> str:
    """Output of git about the folder of this checkout; empty where it is none."""
    root = Path(__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return ""
    try:
        done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
