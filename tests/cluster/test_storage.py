"""Faults of the storage of a run on one machine: full, with damaged shards, with shards that are gone."""

from __future__ import annotations

import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.support.faults import RESUMED, STAGES, FaultRow, StruckProject, flip, repeated_steps


@pytest.mark.long
def test_the_storage_fills_up(project: StruckProject, undisturbed: dict[str, Any], rows: list[FaultRow]) -> None:
    """Must fail where ``is_full`` does not know a full disk: Ray starts the workers again, which fail again."""
    project.storage.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", project.storage], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"no file system of its own can be mounted here: {mounted.stderr.decode()}")
    try:
        run = project.start("register")
        run.wait_until(lambda: len(project.checkpoints()) >= 2)
        filled = time.monotonic()
        with suppress(OSError), (project.storage / "filler").open("wb", buffering=0) as stream:
            while True:
                stream.write(bytes(1 << 16))
        code = run.finish()
        seconds = time.monotonic() - filled
        assert code == 1
        assert "ran out of disk space" in run.said, run.said
        assert "Traceback" not in run.said
        (project.storage / "filler").unlink()
        line = project.resume(run)
        weights = project.audit(undisturbed, STAGES)
    finally:
        subprocess.run(["umount", project.storage], check=True)
    assert weights == "bitwise"
    rows.append(
        FaultRow(
            broken="storage full",
            when="training at step 40",
            detected=seconds,
            repeated=repeated_steps(line) if line else None,
            weights=weights,
            seen=run.last_line("disk space") or run.last_line("unetflow:"),
        )
    )


@pytest.mark.long
def test_shards_are_damaged_and_deleted(
    project: StruckProject, undisturbed: dict[str, Any], rows: list[FaultRow]
) -> None:
    """A bit of each shard flips while no run is there; later all shards are deleted under a run.

    Must fail without the check of a part when it is first read.
    """
    run = project.start("register")
    run.wait_until(lambda: len(project.checkpoints()) >= 2)
    run.strike(signal.SIGKILL)
    run.finish()
    for shard in _shards(project):
        flip(shard)
    struck = time.monotonic()
    damaged = project.start("register")
    assert damaged.finish() == 2, damaged.said
    detected = time.monotonic() - struck
    assert "Traceback" not in damaged.said
    whole = project.start("register", "--verify")
    whole.wait_until(lambda: RESUMED in whole.said)
    reached = len(project.checkpoints())
    whole.wait_until(lambda: len(project.checkpoints()) >= min(reached + 2, 4))
    for shard in _shards(project):
        shard.unlink()
    whole.finish()
    line = whole.last_line(RESUMED)
    again = project.resume(whole)
    weights = project.audit(undisturbed, STAGES)
    assert weights == "bitwise"
    rows += [
        FaultRow(
            broken="a bit of each shard flipped",
            when="between two starts, at step 40",
            detected=detected,
            repeated=repeated_steps(line),
            weights=weights,
            seen=f"exit code 2: {damaged.last_line('its CRC-32')}; with --verify {line}",
        ),
        FaultRow(
            broken="all shards deleted",
            when="training at step 80",
            repeated=0,
            weights=weights,
            seen=f"exit code {whole.process.returncode}: {whole.last_line('missing-shard') or again or 'nothing'}",
        ),
    ]


def _shards(project: StruckProject) -> list[Path]:
    return sorted(project.storage.glob("shards/*/*.tar"))
