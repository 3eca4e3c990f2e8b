"""A command that is killed still leaves a line, one that ends by itself does not."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from flows.cli.last_words import LAST_WORDS

SCRIPT = """
import os
from flows.cli.last_words import last_words
with last_words():
    {end}
"""


@pytest.mark.parametrize(
    ("end", "code", "said"),
    [
        ("os.kill(os.getpid(), 9)", -signal.SIGKILL, [LAST_WORDS]),
        ("os._exit(1)", 1, [LAST_WORDS]),
        ("raise SystemExit(143)", 143, []),
        ("pass", 0, []),
    ],
)
def test_a_process_that_ends_without_a_message(end: str, code: int, said: list[str]) -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT.format(end=end)], stderr=subprocess.PIPE, text=True)
    assert done.returncode == code
    assert done.stderr.splitlines() == said
