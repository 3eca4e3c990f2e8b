"""A line for a command whose process ends without one: killed, out of memory, or ended by Ray's core."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress

LAST_WORDS = (
    "unetflow: the process ended without a message: it was killed, or a server of the Ray that it had started was; "
    "the same command resumes"
)
WATCH = 'read -r word; [ "$word" = done ] || echo "$0" >&2'
"""Script of the watcher: its input ends with the process that holds the other end of the pipe."""


@contextmanager
def last_words() -> Iterator[None]:
    """Print ``LAST_WORDS`` to stderr where this process ends within the block."""
    # In a session of its own: what ends all processes of a terminal or of a service spares it.
    watcher = subprocess.Popen(["/bin/sh", "-c", WATCH, LAST_WORDS], stdin=subprocess.PIPE, start_new_session=True)
    try:
        yield
    finally:
        with suppress(OSError):  # somebody has ended the watcher
            watcher.communicate(b"done\n")
