"""Entry point: runs a command, and turns errors into messages and exit codes."""

from __future__ import annotations

import atexit
import errno
import logging
import os
import re
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

import typer

from data_pipelines.atomic import atomic_file
from data_pipelines.errors import NOT_RETRYABLE, NOT_RETRYABLE_EXIT_CODE, DataError
from data_pipelines.storage import cache_folder
from flows.cli.base import app, keep_stdout_for_results
from flows.cli.last_words import last_words
from flows.config.locations import state_folder
from flows.config.loopback import exempt_loopback

# They define the commands, in the order in which --help lists them.
from flows.cli import pipelines, plan, search, ablate, config, schedule, jobs  # noqa: F401 # isort: skip
from flows.cli import models, importing, explain, doctor, verify, gc  # noqa: F401 # isort: skip

READ_ONLY = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR)
"""Errors of a folder that cannot be made or written to."""
INTERRUPTED = 128 + signal.SIGINT
"""Exit code after Ctrl-C; after SIGTERM it is 143."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run ``unetflow``: a user's mistake is a message and exit code 2, a lost connection or full disk a message and 1.

    A bug shows its traceback and exits with 1; ``UNETFLOW_DEBUG=1`` shows tracebacks always.
    """
    code = 1  # of an error that nobody caught

    def leave() -> None:
        sys.stderr.flush()
        os._exit(code)

    atexit.register(leave)  # first, so it runs last: taking torch, Ray and Prefect apart would take seconds
    signal.signal(signal.SIGTERM, _terminate)  # else Prefect's temporary server would outlive this
    given = sys.argv[1:] if arguments is None else arguments
    if given and "--help" not in given:
        keep_stdout_for_results()
    _configure_logging()
    exempt_loopback()
    with last_words():
        code = run_command(given)
    sys.exit(code)


def _terminate(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def run_command(arguments: Sequence[str]) -> int:
    """Run one command line in this process; return its exit code."""
    pipelines.add_stage_commands()
    try:
        returned = app(list(arguments), prog_name="unetflow", standalone_mode=False)
        if returned == INTERRUPTED:  # Typer has turned a KeyboardInterrupt into this code
            raise KeyboardInterrupt
    except typer.TyperException as error:
        error.show() if hasattr(error, "show") else sys.stderr.write(f"unetflow: {error}\n")
        return error.exit_code
    except (KeyboardInterrupt, SystemExit, typer.Abort) as stop:
        sys.stderr.write("unetflow: stopped; the same command resumes from the last checkpoint\n")
        return stop.code if isinstance(stop, SystemExit) and isinstance(stop.code, int) else INTERRUPTED
    except Exception as error:
        if os.environ.get("UNETFLOW_DEBUG") or not _is_told(error):
            raise
        sys.stderr.write(f"unetflow: {_told(error)}\n")
        if isinstance(error, DataError) and error.is_abridged:
            sys.stderr.write(f"all {len(error.problems)} of them: {_write_problems(error)}\n")
        return NOT_RETRYABLE_EXIT_CODE if isinstance(error, NOT_RETRYABLE) else 1
    return returned if isinstance(returned, int) else 0  # the code of a typer.Exit


_MLFLOW_IS_GONE = re.compile(r"API request to (\w+://[^/\s]+)\S* failed with exception")


def _is_told(error: Exception) -> bool:
    """Tell whether an error is a message: a user's mistake, or what an operating system or MLflow's server says."""
    return isinstance(error, (*NOT_RETRYABLE, OSError)) or type(error).__module__ == "mlflow.exceptions"


def _told(error: Exception) -> str:
    """Return what the user is told; of a server that is gone, MLflow passes on what urllib3 says."""
    if gone := _MLFLOW_IS_GONE.match(str(error)):
        return f"MLflow no longer responds at {gone[1]}: start it; the same command then resumes"
    return f"{error}{_hint(error)}"


def _hint(error: Exception) -> str:
    """Return which variables move the folders of this user, where one of them cannot be written to."""
    if not isinstance(error, OSError) or error.errno not in READ_ONLY or not error.filename:
        return ""
    path, folders = Path(os.fsdecode(error.filename)), (state_folder(), cache_folder())
    if not any(path.is_relative_to(folder) or folder.is_relative_to(path) for folder in folders):
        return ""
    return "; set XDG_STATE_HOME, and UNETFLOW_CACHE or XDG_CACHE_HOME, to folders that can be written to"


def _write_problems(error: DataError) -> str:
    """Write the full list of problems to the user's state folder; return the file, or why there is none."""
    path = state_folder() / "problems" / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.txt"
    try:
        with atomic_file(path) as partial:
            partial.write_text(error.describe() + "\n")
    except OSError as failure:
        return f"not written, {path}: {failure.strerror}"
    return str(path)


def _configure_logging() -> None:
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(asctime)s  %(message)s", datefmt="%H:%M:%S")
    for name in ("flows", "data_pipelines", "unet_models"):
        logging.getLogger(name).setLevel(logging.INFO)
    if not os.environ.get("UNETFLOW_DEBUG"):
        logging.getLogger("urllib3").setLevel(logging.ERROR)  # a line per retry; what failed in the end is told by us
