"""Pictures of several inputs: each has a folder of its own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from data_pipelines.errors import InputError
from flows.running.explain import _check_folders, _explain_all
from flows.running.prediction.items import Item


def explain(row: Mapping[str, Any], folder: Path) -> list[Path]:
    if row["path"] == "damaged":
        raise InputError("is damaged")
    return [folder / "saliency.png"]


def test_names_with_dots_are_folders_of_their_own(tmp_path: Path) -> None:
    """UIDs of DICOM series, for example."""
    names = ("1.2.840.1", "1.2.840.2", "scan.v1", "scan.v2")
    items = [Item({"path": name}, str(tmp_path / f"{name}.nii.gz"), []) for name in names]
    items += [Item({"path": "damaged"}, str(tmp_path / f"{name}.png"), []) for name in ("a.1", "a.2")]
    files, failures = _explain_all(explain, items, tmp_path)
    assert files == [f"{name}/saliency.png" for name in names]
    assert list(failures) == ["a.1", "a.2"]


def test_pictures_do_not_go_into_the_series_that_they_explain(tmp_path: Path) -> None:
    items = [Item({"path": str(tmp_path / "P1")}, str(tmp_path / "P1.nii.gz"), [tmp_path / "P1"])]
    _check_folders(items, tmp_path / "out")
    with pytest.raises(InputError, match="P1: its pictures would lie among its slices; name another output folder"):
        _check_folders(items, tmp_path)
