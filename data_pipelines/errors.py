"""Error tree of the project, and problems of the input as data.

Exception
├── UserError               the user can fix it: message without traceback, exit code 2, not retried
│   ├── ConfigError         the configuration or the command line
│   ├── DataError           input files break rules; ``problems`` holds every one that was found
│   ├── WeightsError        a folder or file of network weights cannot be used
│   ├── InputError          a registered model got input that it does not take (also a ValueError)
│   ├── RegistryError       there is no such model, version or champion
│   └── ServerError         Prefect, MLflow or Ray does not answer, or refuses the credentials
├── TrainingDiverged        the loss is not finite: exit code 2, not retried
└── anything else           infrastructure, or a bug: retried, exit code 1; a bug shows its traceback

Bad input is reported in one way: a check raises ``DataError`` (``broken_rule`` builds it), and a loop that continues
with the next file collects it with ``ProblemList.collecting``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

NUM_EXAMPLES = 3
"""Problems of one rule that a message shows; the command line writes the full list to a file."""


class UserError(Exception):
    """A mistake that the user can fix. The message says the rule, the value got, where, and what to do."""


class ConfigError(UserError):
    """A configuration or a command line that cannot be run."""


class WeightsError(UserError):
    """A folder or file of network weights that is missing, incomplete or of another network."""


class InputError(UserError, ValueError):
    """Input that a registered model does not take. A ValueError, too, for callers that know MLflow alone."""


class RegistryError(UserError):
    """A model, version or champion that the registry does not have."""


class ServerError(UserError):
    """A server that does not answer, refuses the credentials, or runs another version."""


class TrainingDiverged(Exception):  # noqa: N818 - an outcome, and what people call it
    """The loss became NaN or infinite. The same training diverges again, so it is not retried."""


def printable(text: str) -> str:
    """Write bytes that are not UTF-8 as \\udcXX, so that the text can be shown and stored."""
    return text.encode("utf-8", "backslashreplace").decode()


def name_some(names: Sequence[str], limit: int) -> str:
    """Name the first ``limit`` of some names, and say where there are more."""
    return ", ".join(names[:limit]) + (", ..." if len(names) > limit else "")


def first_line(error: BaseException, empty: str = "no message") -> str:
    """Return the first line of an error's message; ``empty`` where it has none."""
    return (str(error) or empty).splitlines()[0]


@dataclass(frozen=True, slots=True)
class Problem:
    """One broken rule: which file, which rule, what was found there, and what to do about it."""

    rule: str
    """Short stable name of the rule, such as ``geometry-mismatch``."""
    path: str
    """File or folder that breaks the rule."""
    message: str
    """Rule and value got, in one sentence."""
    remedy: str
    """Remedy, in one sentence."""
    case_id: str = ""
    """Case that the problem belongs to; empty where it is the data set's."""

    def __post_init__(self) -> None:
        for name in ("path", "message", "case_id"):  # which may hold names of files, and are written as UTF-8
            object.__setattr__(self, name, printable(getattr(self, name)))


class DataError(UserError):
    """Input files that break rules; ``problems`` holds every one that was found, not just the first."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__(problems)  # the argument itself, so that the error survives pickling between processes
        self.problems = tuple(problems)

    def __str__(self) -> str:
        return self.describe(NUM_EXAMPLES)

    @property
    def is_abridged(self) -> bool:
        """Tell whether the message omits problems."""
        return any(len(group) > NUM_EXAMPLES for group in self._groups())

    def describe(self, num_examples: int | None = None) -> str:
        """List the problems by rule: ``num_examples`` of each, or all of them."""
        count = len(self.problems)
        parts = [f"{count} problem{'s' if count != 1 else ''} in the input data:"]
        for group in self._groups():
            parts.append(f"\n{group[0].rule}, {len(group)} file{'s' if len(group) != 1 else ''}")
            parts += [f"  {problem.path}: {problem.message}" for problem in group[:num_examples]]
            if num_examples is not None and len(group) > num_examples:
                parts.append(f"  ... and {len(group) - num_examples} more")
            parts.append(f"  -> {group[0].remedy}")
        if all(problem.case_id for problem in self.problems):
            parts.append("\nOr continue without these cases: --set data.on_error=quarantine")
        return "\n".join(parts)

    def _groups(self) -> list[list[Problem]]:
        """Group the problems by rule and remedy, in the order in which the rules were first broken."""
        groups: dict[tuple[str, str], list[Problem]] = {}
        for problem in self.problems:
            groups.setdefault((problem.rule, problem.remedy), []).append(problem)
        return list(groups.values())


def broken_rule(rule: str, path: str | Path, message: str, remedy: str, case_id: str = "") -> DataError:
    """Build the error of one file that breaks one rule, to be raised."""
    return DataError([Problem(rule, str(path), message, remedy, case_id)])


class ProblemList(list[Problem]):
    """Problems of many files, collected so that all of them are reported at once."""

    @contextmanager
    def collecting(self, case_id: str = "") -> Iterator[None]:
        """Append the problems of a ``DataError`` that ends the block; ``case_id`` replaces theirs where it is given."""
        try:
            yield
        except DataError as error:
            self += [replace(problem, case_id=case_id) if case_id else problem for problem in error.problems]


NOT_RETRYABLE = (UserError, TrainingDiverged)
"""Errors that a retry would only repeat. Prefect tasks, Ray jobs and the command line all read this."""
NOT_RETRYABLE_EXIT_CODE = 2
"""Exit code of ``unetflow`` for them; everything else exits with 1."""
