"""A user's empty home, and what runs in it: the command line, and a consumer of models without the checkout."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.support.commands import Outcome, run_here, run_installed, without_servers

CHECKOUT = Path(__file__).resolve().parents[2]
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
"""Begins a script that must work without the checkout, whose path is its first argument."""


class Project:
    """An empty home with a config in it."""

    def __init__(self, home: Path, config: str) -> None:
        self.home = home
        self.config = home / "tiny.yaml"
        self.config.write_text(config)
        self.storage = home / "storage"

    def run(self, *arguments: str) -> dict[str, Any]:
        """Run the command in this process, on the tests' Ray and cache; return its record."""
        return run_here(*arguments, "--json", environment={"UNETFLOW_STORAGE": str(self.storage)}).record

    def run_installed(self, *arguments: str) -> Outcome:
        """Run the console script in this home."""
        return run_installed(*arguments, environment=self.variables, folder=self.home)

    def consume(self, script: str, *arguments: str) -> dict[str, Any]:
        """Run a script that cannot import the checkout; return the JSON object that its last line is."""
        words = [sys.executable, "-c", ALONE + script, str(CHECKOUT), *arguments]
        done = subprocess.run(words, env=self.environment, cwd=self.home, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return answer

    @property
    def environment(self) -> dict[str, str]:
        """The environment of a process in this home."""
        return without_servers() | self.variables

    @property
    def variables(self) -> dict[str, str]:
        """Variables that lead into this home."""
        cache = str(self.home / "cache")
        return {"HOME": str(self.home), "UNETFLOW_STORAGE": str(self.storage), "UNETFLOW_CACHE": cache}
