"""CPUs that a process may use."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from data_pipelines import cores
from data_pipelines.cores import count_cpus


@pytest.fixture
def quota(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Path of the container's quota; four CPUs are allowed by affinity."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 4, 5})
    monkeypatch.setattr(cores, "QUOTA", tmp_path / "cpu.max")
    return tmp_path / "cpu.max"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("max 100000\n", 4),
        ("200000 100000\n", 2),
        ("150000 100000\n", 2),  # one and a half
        ("1000 100000\n", 1),
        ("800000 100000\n", 4),
        ("odd", 4),
    ],
)
def test_cpus_are_those_of_the_quota_and_of_the_affinity(quota: Path, text: str, expected: int) -> None:
    quota.write_text(text)
    assert count_cpus() == expected


def test_without_a_quota_the_affinity_counts(quota: Path) -> None:
    assert not quota.exists()
    assert count_cpus() == 4


def test_a_process_bound_to_one_cpu_counts_one() -> None:
    program = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); "
    program += "from data_pipelines.cores import count_cpus; print(count_cpus())"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "1\n"
