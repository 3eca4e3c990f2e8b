"""One case: what is expected, what is seen, whether it is right; and the table of all."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

Check = Callable[[Path], str]
"""Judges the folder that a generator wrote: returns what was seen, raises AssertionError where that is wrong."""


@dataclass(frozen=True, slots=True)
class Case:
    """A generator's name, the right behaviour, and the check of it."""

    name: str
    """Beginning of the file name of the generator: its number."""
    expected: str
    check: Check


@dataclass(frozen=True, slots=True)
class Verdict:
    """Outcome of one case."""

    name: str
    expected: str
    seen: str
    is_right: bool


def judge(case: Case, generators: Path, work: Path) -> Verdict:
    """Run the generator of a case into a folder of its own and check what the product makes of it."""
    (generator,) = generators.glob(f"{case.name}_*.py")
    folder = Path(tempfile.mkdtemp(prefix=f"{generator.stem}-", dir=work))
    try:
        subprocess.run([sys.executable, str(generator), str(folder)], check=True, capture_output=True, text=True)
        return Verdict(generator.stem, case.expected, case.check(folder), True)
    except subprocess.CalledProcessError as error:
        return Verdict(generator.stem, case.expected, f"the generator fails: {error.stderr[-300:]}", False)
    except AssertionError as error:
        return Verdict(generator.stem, case.expected, f"wrong: {error}"[:600], False)
    except Exception as error:  # a case that crashes is a case that fails
        place = traceback.extract_tb(error.__traceback__)[-1]
        seen = f"{type(error).__name__} at {Path(place.filename).name}:{place.lineno}: {error}"
        return Verdict(generator.stem, case.expected, seen[:600], False)


def missing(cases: Sequence[Case], generators: Path) -> list[str]:
    """List the generators of a folder that no case judges."""
    known = {case.name for case in cases}
    stems = [path.stem for path in sorted(generators.glob("[0-9]*_*.py"))]
    return [stem for stem in stems if stem.partition("_")[0] not in known]


def print_table(suites: Mapping[str, Sequence[Verdict]]) -> None:
    """Print one table per suite: case, expected, seen, ok."""
    console = Console(width=200 if not sys.stdout.isatty() else None)
    for name, verdicts in suites.items():
        table = Table("case", "expected", "seen", "ok", title=name, show_lines=True)
        for verdict in verdicts:
            table.add_row(verdict.name, verdict.expected, verdict.seen, "yes" if verdict.is_right else "NO")
        console.print(table)
        console.print(f"{sum(v.is_right for v in verdicts)} of {len(verdicts)} are right\n")
