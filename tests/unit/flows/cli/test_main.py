"""Errors become messages and exit codes: a user's mistake 2, what may pass 1, a bug its traceback."""

from __future__ import annotations

import errno
import logging
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from data_pipelines.errors import (
    ConfigError,
    DataError,
    InputError,
    Problem,
    ServerError,
    TrainingDiverged,
    UserError,
)
from flows.cli import pipelines, run_command
from flows.cli.main import _configure_logging
from flows.cluster.job import JobFailedError
from flows.config.locations import state_folder
from flows.doctor import servers
from flows.doctor.servers import Answer

Fail = Callable[[BaseException], int]


@pytest.fixture
def fail(monkeypatch: pytest.MonkeyPatch) -> Fail:
    """Run a command that raises the given error; return its exit code."""

    def run(error: BaseException) -> int:
        def load_config(*_: object) -> None:
            raise error

        monkeypatch.setattr(pipelines, "load_config", load_config)
        return run_command(["run", "a.yaml"])

    return run


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UserError("a wrong field"), 2),
        (ConfigError("a wrong field"), 2),
        (ServerError("it does not answer"), 2),
        (InputError("no such channel"), 2),
        (TrainingDiverged("the loss is NaN"), 2),
        (OSError("the disk is full"), 1),
        (ConnectionError("the store is away"), 1),
        (JobFailedError("the node was lost"), 1),
    ],
)
def test_the_exit_code_tells_a_mistake_from_what_may_pass(
    fail: Fail, error: BaseException, code: int, capfd: pytest.CaptureFixture[str]
) -> None:
    assert fail(error) == code
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith(f"unetflow: {error}")
    assert "Traceback" not in err


@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt(), 130), (SystemExit(143), 143)])
def test_a_stopped_command_says_that_it_can_be_resumed(
    fail: Fail, error: BaseException, code: int, capfd: pytest.CaptureFixture[str]
) -> None:
    assert fail(error) == code
    assert "unetflow: stopped; the same command resumes from the last checkpoint" in capfd.readouterr().err


def test_retries_of_requests_are_no_lines_of_the_console(monkeypatch: pytest.MonkeyPatch) -> None:
    before = logging.getLogger("urllib3").level
    pool = logging.getLogger("urllib3.connectionpool")
    monkeypatch.setattr(pool, "level", logging.NOTSET)  # libraries that ran before may have set it
    try:
        for debug, shown in (("1", True), ("", False)):
            monkeypatch.setenv("UNETFLOW_DEBUG", debug)
            _configure_logging()
            assert pool.isEnabledFor(logging.WARNING) is shown
    finally:
        logging.getLogger("urllib3").setLevel(before)


def test_what_the_server_of_mlflow_says_is_a_line(fail: Fail, capfd: pytest.CaptureFixture[str]) -> None:
    from mlflow.exceptions import RestException

    assert fail(RestException({"error_code": "PERMISSION_DENIED", "message": "not yours"})) == 1
    assert capfd.readouterr().err == "unetflow: PERMISSION_DENIED: not yours\n"


def test_a_server_of_mlflow_that_is_gone_is_a_line(
    fail: Fail, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    address = "http://127.0.0.1:9"  # at which nothing listens
    with pytest.raises(MlflowException) as raised:
        MlflowClient(address, address).get_registered_model("tiny")
    assert fail(raised.value) == 1
    said = capfd.readouterr().err
    assert f"unetflow: MLflow no longer responds at {address}: start it; the same command then resumes" in said
    assert "HTTPConnectionPool" not in said


def test_a_read_only_home_is_a_line_with_the_variables_to_set(
    fail: Fail, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for path, is_home in (
        (tmp_path / ".local", True),
        (state_folder() / "mlflow.db", True),
        (tmp_path / "data", False),
    ):
        assert fail(PermissionError(errno.EACCES, "Permission denied", str(path))) == 1
        assert ("; set XDG_STATE_HOME, and UNETFLOW_CACHE" in capfd.readouterr().err) is is_home


def test_a_wrong_password_is_a_line(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """Whatever asks the registry: MLflow itself ends in a traceback, or tries again for minutes."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "me")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "wrong")
    monkeypatch.setattr(servers, "ask", lambda url, headers: Answer(401))
    commands = (["models"], ["models", "m"], ["champion", "m"], ["predict", "models:/m/1", "in", "out"], ["gc"])
    for command in commands:
        assert run_command(list(command)) == 2
        said = "unetflow: mlflow: http://127.0.0.1:5000: MLFLOW_TRACKING_PASSWORD is wrong; export MLFLOW"
        assert capfd.readouterr().err.startswith(said)


@pytest.mark.parametrize("error", [ValueError("a bug"), KeyError("a bug"), RuntimeError("a bug"), AssertionError()])
def test_a_bug_keeps_its_traceback(fail: Fail, error: Exception) -> None:
    with pytest.raises(type(error)) as caught:
        fail(error)
    assert caught.value is error


def test_debugging_shows_every_traceback(fail: Fail, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNETFLOW_DEBUG", "1")
    with pytest.raises(ConfigError, match="a wrong field"):
        fail(ConfigError("a wrong field"))


def problems(count: int) -> DataError:
    return DataError(
        [Problem("label-values", f"labels/{i}.nii.gz", "got 255", "Divide by 255.", f"c{i}") for i in range(count)]
    )


def test_many_problems_are_abridged_and_all_of_them_are_in_a_file(
    fail: Fail, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert fail(problems(30)) == 2
    message = capfd.readouterr().err
    assert message.startswith("unetflow: 30 problems in the input data:")
    assert re.findall(r"labels/(\d+)\.nii\.gz", message) == ["0", "1", "2"]
    assert "... and 27 more" in message
    assert message.count("-> Divide by 255.") == 1
    (listed,) = re.findall(r"^all 30 of them: (.*)$", message, re.MULTILINE)
    assert Path(listed).is_relative_to(tmp_path)
    assert Path(listed).parent == state_folder() / "problems"
    complete = Path(listed).read_text()
    assert re.findall(r"labels/(\d+)\.nii\.gz: got 255", complete) == [str(i) for i in range(30)]
    assert "more" not in complete


def test_few_problems_are_shown_and_no_file_is_written(
    fail: Fail, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert fail(problems(3)) == 2
    message = capfd.readouterr().err
    assert re.findall(r"labels/(\d+)\.nii\.gz", message) == ["0", "1", "2"]
    assert "of them:" not in message
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_word_on_the_command_line(capfd: pytest.CaptureFixture[str]) -> None:
    assert run_command(["fly"]) == 2
    assert "No such command" in capfd.readouterr().err
    assert run_command(["run"]) == 2
    assert "CONFIG.yaml" in capfd.readouterr().err


def test_help_is_a_result_and_lists_the_verbs_in_data_order() -> None:
    done = subprocess.run([sys.executable, "-m", "flows.cli", "--help"], capture_output=True, text=True, check=True)
    listed = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("│ ")]
    others = {"train", "evaluate", "encode", "status", "cancel", "serve", "models", "champion", "config"}
    in_order = ("demo", "run", "shard", "register", "submit", "predict", "doctor")
    assert others | set(in_order) <= set(listed)
    assert sorted(in_order, key=listed.index) == list(in_order)
    assert "stage" not in listed, "an entry point of jobs, not of people"
