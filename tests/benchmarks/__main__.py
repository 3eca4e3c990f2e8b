"""``python -m tests.benchmarks [training|family|inference|sharding|...]``: all where none is named."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from tests.benchmarks import diffusion, family, inference, layout, loading, pipeline, sharding, step, training

BENCHMARKS = {
    "training": lambda folder: training.run(),
    "step": step.run,
    "layout": lambda folder: layout.run(),
    "family": lambda folder: family.run(),
    "inference": inference.run,
    "sharding": sharding.run,
    "loading": loading.run,
    "diffusion": diffusion.run,
    "pipeline": pipeline.run,
}


def main() -> None:
    """Run the named benchmarks, each in an empty folder."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks", description="Time this project beside the best peer."
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHMARKS))
    names = parser.parse_args().names
    if unknown := [name for name in names if name not in BENCHMARKS]:
        parser.error(f"there is no benchmark {unknown[0]}; choose from {', '.join(BENCHMARKS)}")
    for name in names or BENCHMARKS:
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            BENCHMARKS[name](Path(folder))


if __name__ == "__main__":
    main()
