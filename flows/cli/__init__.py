"""``unetflow``: the verbs, in data order. Results go to stdout, everything else to stderr."""

from __future__ import annotations

import atexit
import logging
import os
import signal
import sys
from collections.abc import Sequence

import typer

from data_pipelines.errors import MISTAKE_CODE, MISTAKES
from flows.cli.base import app, keep_stdout_for_results

# They define the verbs, in the order in which --help lists them.
from flows.cli import pipelines, schedule, jobs, models, doctor  # noqa: F401 # isort: skip


def _configure_logging() -> None:
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(asctime)s  %(message)s", datefmt="%H:%M:%S")
    for name in ("flows", "data_pipelines", "unet_models"):
        logging.getLogger(name).setLevel(logging.INFO)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point: a mistake is a message and exit code 2, a lost connection or a full disk a message and 1.

    ``UNETFLOW_DEBUG=1`` shows the traceback.
    """
    code = 1  # of an error that nobody caught

    def leave() -> None:
        sys.stderr.flush()
        os._exit(code)

    atexit.register(leave)  # first, so it runs last: taking torch, Ray and Prefect apart would take seconds
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # else Prefect's temporary server would outlive this
    given = sys.argv[1:] if arguments is None else arguments
    if given and "--help" not in given:
        keep_stdout_for_results()
    _configure_logging()
    code = run_command(given)
    sys.exit(code)


def run_command(arguments: Sequence[str]) -> int:
    """Run one command line in this process; returns its exit code."""
    try:
        returned = app(list(arguments), prog_name="unetflow", standalone_mode=False)
    except typer.TyperException as error:
        error.show() if hasattr(error, "show") else sys.stderr.write(f"unetflow: {error}\n")
        return error.exit_code
    except (KeyboardInterrupt, SystemExit, typer.Abort):  # SIGTERM is one of them, whether Ray handles it or we do
        sys.stderr.write("unetflow: stopped; the same command goes on from the last checkpoint\n")
        return 130
    except (*MISTAKES, OSError) as error:
        if os.environ.get("UNETFLOW_DEBUG"):
            raise
        sys.stderr.write(f"unetflow: {error}\n")
        return MISTAKE_CODE if isinstance(error, MISTAKES) else 1
    return returned if isinstance(returned, int) else 0  # the code of a typer.Exit
