"""A lock made of files alone: one holder at a time, whoever is killed, stopped, or comes at the same moment."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from data_pipelines import storage
from flows.stages.lease import FOLDER, FORGOTTEN_SECONDS, LeaseLostError, Pace, hold_lease, try_lease

PATIENT = Pace(renew=0.01, lost=60, dead=90, poll=0.001)
"""For holders that live: none dies, however slow the machine is."""
HASTY = Pace(renew=0.01, lost=60, dead=1.2, poll=0.01)
"""For who takes over from a dead one."""
HOLDER = """
import sys
from flows.stages.lease import LeaseLostError, Pace, hold_lease
with hold_lease(sys.argv[1], Pace(renew=0.05, lost=1.0, dead=90)) as lease:
    print("held", flush=True)
    sys.stdin.readline()
    try:
        lease.require()
        print("current", flush=True)
    except LeaseLostError as error:
        print("lost", flush=True)
    sys.stdin.readline()
"""
"""Holds the lock of a folder; for each line of input says whether it still does."""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the lock of the folder."""
    words = [sys.executable, "-c", HOLDER, str(tmp_path)]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def claims(folder: Path) -> list[str]:
    return storage.list_names(str(folder / FOLDER))


def test_one_holder_at_a_time(tmp_path: Path) -> None:
    inside: list[int] = []
    most: list[int] = []

    def work(number: int) -> None:
        for _ in range(5):
            with hold_lease(str(tmp_path), PATIENT) as lease:
                inside.append(number)
                most.append(len(inside))
                lease.require()
                inside.remove(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 30
    assert claims(tmp_path) == []


def test_who_chooses_a_number_is_waited_for(tmp_path: Path) -> None:
    """Its number may be lower than ours: without this, two that come at once could both go in."""
    (tmp_path / FOLDER).mkdir()
    choosing = tmp_path / FOLDER / "0000000000-other"
    choosing.touch()
    with try_lease(str(tmp_path), PATIENT) as is_held:
        assert not is_held
    choosing.unlink()
    with try_lease(str(tmp_path), PATIENT) as is_held:
        assert is_held


def test_a_claim_that_nobody_renews_dies(tmp_path: Path) -> None:
    """One of another machine: nobody here can tell that its process has ended."""
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / f"0000000001-{'0' * 16}-1-1-other").touch()
    with try_lease(str(tmp_path), PATIENT) as is_held:
        assert not is_held
    with hold_lease(str(tmp_path), HASTY):
        assert len(claims(tmp_path)) == 1, "that of the other machine is gone"


def test_a_killed_process_of_this_machine_is_not_waited_for(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    with try_lease(str(tmp_path), PATIENT) as is_held:
        assert not is_held
    holder.kill()
    holder.wait()
    with try_lease(str(tmp_path), PATIENT) as is_held:
        assert is_held


def test_a_holder_that_was_stopped_records_nothing(
    tmp_path: Path, holder: subprocess.Popen[str], caplog: pytest.LogCaptureFixture
) -> None:
    """And does not bring its claim back to life."""
    assert holder.stdin is not None
    assert holder.stdout is not None
    holder.send_signal(signal.SIGSTOP)
    with hold_lease(str(tmp_path), HASTY):
        ours = claims(tmp_path)
        holder.send_signal(signal.SIGCONT)
        holder.stdin.write("\n")
        holder.stdin.flush()
        assert holder.stdout.readline() == "lost\n"
        assert set(claims(tmp_path)) <= set(ours)
    assert "another process is running this stage" in caplog.text


def test_a_holder_whose_claim_was_removed_has_lost_it(tmp_path: Path) -> None:
    with hold_lease(str(tmp_path), PATIENT) as lease:
        lease.require()
        for name in claims(tmp_path):
            (tmp_path / FOLDER / name).rename(tmp_path / name)
        with pytest.raises(LeaseLostError, match="another one may have taken over; nothing was recorded"):
            lease.require()


def test_a_claim_of_the_day_before_yesterday_is_dead_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / FOLDER).mkdir()
    forgotten = tmp_path / FOLDER / "0000000001-other"
    forgotten.touch()
    with try_lease(str(tmp_path), PATIENT) as is_held:
        assert not is_held
    later = time.time() + 3 * FORGOTTEN_SECONDS
    monkeypatch.setattr(time, "time", lambda: later)  # the clock of who waits says nothing
    with try_lease(str(tmp_path), PATIENT) as is_held:
        assert not is_held
    monkeypatch.undo()
    os.utime(forgotten, (time.time() - FORGOTTEN_SECONDS - 60,) * 2)
    with try_lease(str(tmp_path), PATIENT) as is_held:
        assert is_held
