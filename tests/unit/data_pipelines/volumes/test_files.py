"""Volumes of any format by their names, and one error for whatever cannot be read."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from data_pipelines.errors import DataError
from data_pipelines.volumes.files import is_volume_name, read_volume, strip_suffix
from tests.support.volumes import LIMIT, rule_of


def test_what_is_no_volume_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.nii.gz").write_bytes(b"PK\x03\x04" * 200)
    (tmp_path / "a.mnc").write_bytes(b"x")
    assert rule_of(tmp_path / "a.nii.gz") == "bad-header"
    assert rule_of(tmp_path / "a.mnc") == "unknown-format"
    assert rule_of(tmp_path / "absent.nii") == "file-missing"


def test_error_survives_pickling(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        read_volume(tmp_path / "absent.nii", LIMIT)
    copy = pickle.loads(pickle.dumps(caught.value))
    assert copy.problems == caught.value.problems
    assert str(copy) == str(caught.value)


def test_names() -> None:
    assert [strip_suffix(n) for n in ("a_01.nii.gz", "a.b.NII", "x.jpeg", "x.json")] == ["a_01", "a.b", "x", "x.json"]
    assert [is_volume_name(n) for n in ("a.nii.gz", "._a.nii.gz", ".png", "a.txt")] == [True, False, False, False]
