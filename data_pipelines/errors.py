"""What can be wrong with the input, as data.

UserError            anything the person at the keyboard can mend: printed without a traceback
└── DataError        one or more broken rules in the input files, listed all at once
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

MISTAKES = (ValueError, FloatingPointError)
"""Errors that trying again repeats: a wrong config or input, UserError among them, or a training that diverged."""
MISTAKE_CODE = 2
"""Exit code of ``unetflow`` for these; anything else is 1, and may go right next time."""


class UserError(ValueError):
    """A mistake the user can mend. The message says the rule, the value got, where, and what to do."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One broken rule: which file, which rule, what was found there, and what to do about it."""

    rule: str
    """Short stable name of the rule, such as ``geometry-mismatch``."""
    path: str
    """The file (or folder) that breaks it."""
    message: str
    """The rule and the value got, in one sentence."""
    remedy: str
    """What to do, in one sentence."""
    case_id: str = ""
    """The case it belongs to, empty where the problem is the data set's."""

    def __str__(self) -> str:
        return f"{self.path}: {self.message} [{self.rule}]\n    -> {self.remedy}"


class DataError(UserError):
    """Input files break rules; ``problems`` holds every one that was found, not just the first."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__(problems)  # the argument itself, so that the error survives pickling between processes
        self.problems = tuple(problems)

    def __str__(self) -> str:
        count = len(self.problems)
        listing = "\n".join(f"  {problem}" for problem in self.problems)
        text = f"{count} problem{'s' if count != 1 else ''} in the input data:\n{listing}"
        if all(problem.case_id for problem in self.problems):
            text += "\nOr go on without these cases: --set data.on_error=quarantine"
        return text
