"""The end of a server of a local Ray, with other processes in the places of Ray's."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from data_pipelines.errors import ConfigError
from flows.cluster import local_ray
from flows.cluster.local_ray import (
    LocalRayLostError,
    describe_loss,
    require_local_ray,
    tell_slow_start,
    watch_local_ray,
)

pytestmark = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="watching needs pidfd_open, of Linux")


@pytest.fixture
def raylet(monkeypatch: pytest.MonkeyPatch) -> Iterator[subprocess.Popen[bytes]]:
    """A process that stands where the raylet does; it is watched."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        monkeypatch.setattr(local_ray, "_servers", lambda: {"raylet": process})
        watch_local_ray()
        yield process
        process.kill()


def test_the_main_thread_is_woken_whatever_it_waits_for_and_whatever_it_catches(
    raylet: subprocess.Popen[bytes],
) -> None:
    threading.Timer(0.05, raylet.kill).start()
    message = "Ray's raylet on this machine was killed by SIGKILL; the same command"
    with pytest.raises(LocalRayLostError, match=message), require_local_ray():
        while True:
            try:
                time.sleep(60)
            except Exception:  # as Ray Data does
                continue


def test_an_error_of_rays_own_that_comes_first_is_put_in_our_words(raylet: subprocess.Popen[bytes]) -> None:
    failed: list[BaseException] = []

    def fail() -> None:
        try:
            with require_local_ray():
                raylet.communicate(b"\n")
                raise RuntimeError("Check raylet.out for more information.")
        except BaseException as error:
            failed.append(error)

    other = threading.Thread(target=fail)  # nobody wakes it
    other.start()
    other.join()
    (error,) = failed
    assert isinstance(error, LocalRayLostError)
    assert "Ray's raylet on this machine ended with exit code 0" in str(error)


def test_outside_of_blocks_nobody_is_woken(raylet: subprocess.Popen[bytes]) -> None:
    with require_local_ray():
        pass
    raylet.kill()
    raylet.wait()
    time.sleep(0.05)
    assert describe_loss() == "Ray's raylet on this machine was killed by SIGKILL"


def test_errors_that_have_other_causes_are_left_alone(raylet: subprocess.Popen[bytes]) -> None:
    with pytest.raises(RuntimeError, match="a bug"), require_local_ray():
        raise RuntimeError("a bug")
    with pytest.raises(ConfigError), require_local_ray():
        raise ConfigError("a mistake stays one")


def test_a_start_that_takes_too_long_is_told_in_a_line() -> None:
    """Ray raises a bare Exception, which would be shown as a bug."""
    with pytest.raises(LocalRayLostError, match="did not start within 30 s: the machine is busy"), tell_slow_start():
        raise Exception("The current node timed out during startup. This could happen because …")
    with pytest.raises(RuntimeError, match="another"), tell_slow_start():
        raise RuntimeError("another")


def test_a_block_does_not_begin_where_a_server_is_dead(raylet: subprocess.Popen[bytes]) -> None:
    """Ray's core would end the process where the block asks for anything."""
    raylet.kill()
    raylet.wait()
    with pytest.raises(LocalRayLostError), require_local_ray():
        pytest.fail("began")
