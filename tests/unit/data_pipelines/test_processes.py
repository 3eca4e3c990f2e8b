"""Names of processes: a live one is never gone, an ended one is, whoever has its number now."""

from __future__ import annotations

import os
import subprocess
import sys

from data_pipelines.processes import is_gone, this_process


def test_this_process_is_there() -> None:
    assert not is_gone(this_process())


def test_an_ended_process_is_gone_before_and_after_it_is_reaped() -> None:
    words = [
        sys.executable,
        "-c",
        "from data_pipelines.processes import this_process; print(this_process(), flush=True)",
    ]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        name = process.stdout.read().strip()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert is_gone(name)
    assert is_gone(name)


def test_a_number_that_another_process_has_now() -> None:
    machine, number, started = this_process().split("-")
    assert is_gone(f"{machine}-{number}-{int(started) - 1}")


def test_processes_of_other_machines_and_odd_names_are_not_gone() -> None:
    _, number, started = this_process().split("-")
    for name in (f"{'0' * 16}-{number}-{int(started) - 1}", "", "-", "other", f"{'0' * 16}-x-y"):
        assert not is_gone(name)
