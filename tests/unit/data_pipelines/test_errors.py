"""The error tree: messages that stay short, lists that stay whole, and problems collected over many files."""

from __future__ import annotations

import pickle

import pytest

from data_pipelines.errors import (
    NOT_RETRYABLE,
    ConfigError,
    DataError,
    InputError,
    Problem,
    ProblemList,
    TrainingDiverged,
    UserError,
    broken_rule,
    first_line,
    name_some,
)


def problem(number: int, rule: str = "bad-spacing", case_id: str = "") -> Problem:
    return Problem(rule, f"file_{number}", f"message {number}", f"remedy of {rule}", case_id)


@pytest.mark.parametrize(
    ("names", "expected"),
    [((), ""), (("a",), "a"), (("a", "b"), "a, b"), (("a", "b", "c"), "a, b, ...")],
)
def test_the_first_names_of_many(names: tuple[str, ...], expected: str) -> None:
    assert name_some(names, 2) == expected


def test_the_first_line_of_an_error() -> None:
    assert first_line(OSError("disk full\nat byte 7")) == "disk full"
    assert first_line(OSError()) == "no message"
    assert first_line(OSError(), empty="OSError") == "OSError"


def test_thirty_problems_of_one_rule_show_three() -> None:
    error = DataError([problem(i) for i in range(30)])
    assert str(error) == (
        "30 problems in the input data:\n"
        "\nbad-spacing, 30 files\n"
        "  file_0: message 0\n"
        "  file_1: message 1\n"
        "  file_2: message 2\n"
        "  ... and 27 more\n"
        "  -> remedy of bad-spacing"
    )
    assert error.is_abridged
    full = error.describe()
    assert all(f"file_{i}: message {i}" in full for i in range(30))
    assert "more" not in full
    assert full.count("-> remedy") == 1


def test_one_problem_is_told_whole() -> None:
    error = broken_rule("no-image", "a.png", "there is none", "add it")
    assert str(error) == "1 problem in the input data:\n\nno-image, 1 file\n  a.png: there is none\n  -> add it"
    assert not error.is_abridged


def test_rules_are_grouped_in_the_order_they_were_first_broken() -> None:
    lines = str(DataError([problem(0, "b"), problem(1, "a"), problem(2, "b")])).splitlines()
    assert [line for line in lines if "file" in line] == [
        "b, 2 files",
        "  file_0: message 0",
        "  file_2: message 2",
        "a, 1 file",
        "  file_1: message 1",
    ]


def test_one_rule_with_two_remedies_is_two_groups() -> None:
    first, second = Problem("r", "a", "m", "this", "a"), Problem("r", "b", "m", "that", "b")
    assert str(DataError([first, second])).count("r, 1 file") == 2


def test_quarantine_is_offered_only_where_every_problem_has_a_case() -> None:
    assert "data.on_error=quarantine" in str(DataError([problem(0, case_id="a"), problem(1, case_id="b")]))
    assert "quarantine" not in str(DataError([problem(0, case_id="a"), problem(1)]))


def test_errors_survive_pickling() -> None:
    error = DataError([problem(i) for i in range(5)])
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is DataError
    assert copy.problems == error.problems
    assert str(copy) == str(error)
    assert str(pickle.loads(pickle.dumps(ConfigError("data.root: missing")))) == "data.root: missing"


def test_problems_of_many_files_are_collected() -> None:
    problems = ProblemList()
    done = []
    for name in ("a", "b", "c"):
        with problems.collecting(name):
            if name != "b":
                raise broken_rule("rule", f"{name}.nii", "broken", "mend it")
            done.append(name)
    assert done == ["b"]
    assert [(p.path, p.case_id) for p in problems] == [("a.nii", "a"), ("c.nii", "c")]
    with problems.collecting():
        raise DataError([problem(0, case_id="own"), problem(1)])
    assert [p.case_id for p in problems[2:]] == ["own", ""]


@pytest.mark.parametrize("error", [ConfigError("x"), ValueError("x"), OSError("x")])
def test_other_errors_are_not_collected(error: Exception) -> None:
    problems = ProblemList()
    with pytest.raises(type(error)), problems.collecting("a"):
        raise error
    assert problems == []


def test_what_is_retried() -> None:
    assert issubclass(DataError, UserError)
    assert issubclass(InputError, ValueError)
    assert not issubclass(ConfigError, ValueError)  # a bare ValueError is a bug
    for error in (ConfigError(""), DataError([]), InputError(""), TrainingDiverged("")):
        assert isinstance(error, NOT_RETRYABLE)
    assert not isinstance(ValueError(), NOT_RETRYABLE)
