"""One finding of the doctor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Finding:
    """A subject, its state, and what to do."""

    subject: str
    state: Literal["ok", "warning", "bad"]
    text: str
    remedy: str = ""
    """A command, or a sentence that holds one; empty where nothing is wrong."""


def ok(subject: str, text: str) -> Finding:
    """Build a finding of something that works."""
    return Finding(subject, "ok", text)


def warning(subject: str, text: str, remedy: str) -> Finding:
    """Build a finding of something that works and may cause trouble later."""
    return Finding(subject, "warning", text, remedy)


def bad(subject: str, text: str, remedy: str) -> Finding:
    """Build a finding of something that does not work."""
    return Finding(subject, "bad", text, remedy)
