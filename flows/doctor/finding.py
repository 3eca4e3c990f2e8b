"""One answer of the doctor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Finding:
    """What was looked at, how it is, and what to do."""

    subject: str
    state: Literal["ok", "warning", "bad"]
    text: str
    remedy: str = ""
    """A command, or a sentence that holds one; empty where all is well."""


def ok(subject: str, text: str) -> Finding:
    """All is well."""
    return Finding(subject, "ok", text)


def warning(subject: str, text: str, remedy: str) -> Finding:
    """Works, and may bite later."""
    return Finding(subject, "warning", text, remedy)


def bad(subject: str, text: str, remedy: str) -> Finding:
    """Does not work."""
    return Finding(subject, "bad", text, remedy)
