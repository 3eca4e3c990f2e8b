"""A user's empty home, and what runs in it: the console script, and a consumer of models without the checkout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parents[2]
UNETFLOW = Path(sys.executable).with_name("unetflow")
ALONE = """
import json, sys
checkout = sys.argv[1]
sys.meta_path[:] = [finder for finder in sys.meta_path if "editable" not in getattr(finder, "__module__", "")]
sys.meta_path[:] = [finder for finder in sys.meta_path if "editable" not in getattr(finder, "__name__", "")]
sys.path[:] = [path for path in sys.path if path and not path.startswith(checkout) or "site-packages" in path]
try:
    import flows
except ImportError:
    pass
else:
    sys.exit("the checkout is importable: the test would prove nothing")
"""
"""Begins a script that must get on without the checkout, whose path is its first argument."""


class Project:
    """An empty home and a config in it; runs the console script there."""

    def __init__(self, home: Path, config: str) -> None:
        self.home = home
        self.config = home / "tiny.yaml"
        self.config.write_text(config)
        self.storage = home / "storage"

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT", "MLFLOW", "RAY"))}
        cache = str(self.home / "cache")
        return kept | {"HOME": str(self.home), "UNETFLOW_STORAGE": str(self.storage), "UNETFLOW_CACHE": cache}

    def unetflow(self, *arguments: str) -> dict[str, Any]:
        """stdout of the command, which must be one JSON object."""
        command = [str(UNETFLOW), *arguments, "--json"]
        done = subprocess.run(command, env=self.environment, cwd=self.home, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)
