"""``python -m tests.benchmarks [training|sharding|loading|diffusion|pipeline ...]``: all where none is named."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.benchmarks import diffusion, loading, pipeline, sharding, training

BENCHMARKS = {
    "training": lambda folder: training.run(),
    "sharding": sharding.run,
    "loading": loading.run,
    "diffusion": diffusion.run,
    "pipeline": pipeline.run,
}


def main() -> None:
    """Run the named benchmarks, each in an empty folder."""
    for name in sys.argv[1:] or BENCHMARKS:
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            BENCHMARKS[name](Path(folder))


if __name__ == "__main__":
    main()
