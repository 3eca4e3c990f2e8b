"""Which of nnU-Net's checkpoints are imported."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_pipelines.errors import WeightsError
from flows.pipelines.segmentation.nnunet.results import CHECKPOINT, find_checkpoints


def test_the_fold_of_everything_is_imported_alone_or_by_name(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def add(fold: str) -> None:
        (tmp_path / f"fold_{fold}").mkdir()
        (tmp_path / f"fold_{fold}" / CHECKPOINT).touch()

    add("all")
    assert list(find_checkpoints(tmp_path)) == ["all"]
    add("0")
    add("1")
    assert list(find_checkpoints(tmp_path)) == ["0", "1"]
    assert "fold_all is left out, as by nnU-Net" in caplog.text
    assert list(find_checkpoints(tmp_path, ["all"])) == ["all"]
    with pytest.raises(WeightsError, match="there is no fold 2; there are"):
        find_checkpoints(tmp_path, ["2"])
