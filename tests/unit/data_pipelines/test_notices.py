"""Notices: counted by rule, logged once per rule with examples."""

from __future__ import annotations

import logging

import pytest

from data_pipelines.notices import Notice, count_notices, log_notices, notice, of_case

NOTICES = [notice("unit-unstated", f"{number}.nii", "taken as mm") for number in range(5)]
NOTICES.append(notice("label-rounded", "a.nii", "rounded"))


def test_notices_are_counted_by_rule() -> None:
    assert list(count_notices(NOTICES).items()) == [("label-rounded", 1), ("unit-unstated", 5)]
    assert of_case(NOTICES[-1:], "a") == (Notice(rule="label-rounded", path="a.nii", message="rounded", case_id="a"),)


def test_one_line_is_logged_per_rule(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        log_notices(NOTICES)
    assert [record.getMessage() for record in caplog.records] == [
        "label-rounded (1): a.nii: rounded",
        "unit-unstated (5): 0.nii: taken as mm; 1.nii: taken as mm; 2.nii: taken as mm; and 2 more",
    ]


def test_a_name_that_is_not_utf8_can_be_stored() -> None:
    one = notice("skipped-file", "caf\udce9.txt", ".t\udce9t is no supported format")
    assert (one.path, one.message) == ("caf\\udce9.txt", ".t\\udce9t is no supported format")
