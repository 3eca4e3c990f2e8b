"""Stages that count their runs, and records of stages that never ran."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flows.stages.attempt import Attempt
from flows.stages.record import Figures, Output, Record
from flows.stages.stage import Stage


class CountFigures(Figures):
    """Figures of a stage that counts its runs."""

    num_runs: int = 1


class CountingStages:
    """Plans stages named ``count`` that write one file, and counts how often any of them ran."""

    def __init__(self) -> None:
        self.attempts: list[str] = []

    def plan(self, identity: dict[str, Any] | None = None, **options: Any) -> Stage[CountFigures]:
        """Plan a stage; ``options`` are further fields of ``Stage``."""

        def compute(attempt: Attempt) -> CountFigures:
            self.attempts.append(attempt.name)
            attempt.write("out", "out.txt", b"result")
            return CountFigures(num_runs=len(self.attempts))

        return Stage("count", identity or {}, (), compute, CountFigures, **options)


def finished(stage: str, figures: Any, uri: str = "/nowhere/stage/key", **outputs: str) -> Record[Any]:
    """Build the record of a stage that never ran; ``outputs`` are names and paths below its folder."""
    files = {name: Output(uri=path, size=1, sha256=f"digest of {path}") for name, path in outputs.items()}
    return Record[type(figures)](  # type: ignore[misc]  # a class at run time
        stage=stage, key=f"key of {stage}", uri=uri, outputs=files, figures=figures, seconds=1.5
    )


def record_file(record: Record[Any]) -> Path:
    """Return the file of a record on local storage."""
    return Path(record.uri) / "record.json"
