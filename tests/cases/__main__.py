"""Run every case of a folder of generators against this project and print the table.

python -m tests.cases CASES [NUMBER ...]     with numbers: these cases only

Exit code 1 where a case is wrong, or where a generator has no check.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.cases import diffusion, segmentation
from tests.cases.verdict import Case, Verdict, judge, missing, print_table

SUITES: dict[str, Sequence[Case]] = {"segmentation": segmentation.CASES}
"""Folder of generators to its cases."""


def main(folder: Path, chosen: Sequence[str]) -> int:
    """Judge the cases, print the table, and return the exit code."""
    with tempfile.TemporaryDirectory(prefix="unetflow-cases-") as work:
        suites = {name: judge_suite(folder / name, cases, chosen, Path(work)) for name, cases in SUITES.items()}
        suites["diffusion"] = list(diffusion.judge(folder, Path(work), chosen))
    print_table(suites)
    unjudged = {name: missing(cases, folder / name) for name, cases in SUITES.items()}
    for name, stems in unjudged.items():
        if stems:
            print(f"{name}: no check for {', '.join(stems)}")
    is_right = all(verdict.is_right for verdicts in suites.values() for verdict in verdicts)
    return 0 if is_right and not any(unjudged.values()) else 1


def judge_suite(generators: Path, cases: Sequence[Case], chosen: Sequence[str], work: Path) -> list[Verdict]:
    """Judge the cases of one folder; progress goes to stderr."""
    verdicts = []
    for case in cases:
        if chosen and case.name not in chosen:
            continue
        verdicts.append(judge(case, generators, work))
        print(f"{verdicts[-1].name}: {'ok' if verdicts[-1].is_right else 'WRONG'}", file=sys.stderr)
    return verdicts


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    sys.exit(main(Path(sys.argv[1]).resolve(), sys.argv[2:]))
