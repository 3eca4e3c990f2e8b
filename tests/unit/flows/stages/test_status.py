"""The status of a stage: written while it runs, seldom, removed when it is done."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.config.run_id import RUN_ID_VARIABLE
from flows.stages import status as module
from flows.stages.status import find_statuses, keep_status, live_statuses

KEY = "b" * 64


def test_it_names_run_and_stage_and_is_seen_in_this_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(RUN_ID_VARIABLE, "run-7")
    with keep_status(str(tmp_path / "shard" / KEY), "segmentation", "liver") as keeper:
        (found,) = find_statuses(str(tmp_path))
        assert (found.run_id, found.stage, found.key, found.model) == ("run-7", "shard", KEY, "liver")
        keeper.update(step=3)
        assert [each.step for each in live_statuses()] == [3]
    assert live_statuses() == []


def test_updates_in_quick_succession_are_written_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(module.time, "time", lambda: now)
    with keep_status(str(tmp_path / "train" / KEY), "", "") as keeper:
        now += 1
        keeper.update(step=1)
        assert find_statuses(str(tmp_path))[0].step == 0
        now += 1
        keeper.update(step=2)
        assert find_statuses(str(tmp_path))[0].step == 2


def test_the_last_state_of_a_stage_that_fails_stays(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="full"), keep_status(str(tmp_path / "train" / KEY), "", "") as keeper:
        keeper.update(step=5)
        raise OSError("full")
    assert find_statuses(str(tmp_path))[0].step == 5


def test_a_damaged_file_is_told_and_hides_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "running").mkdir()
    (tmp_path / "running" / "train-x.json").write_text("{")
    with keep_status(str(tmp_path / "train" / KEY), "", ""):
        assert len(find_statuses(str(tmp_path))) == 1
    assert "train-x.json is damaged" in caplog.text


def test_an_object_store_holds_no_status(tmp_path: Path) -> None:
    with keep_status("s3://bucket/train/" + KEY, "", "") as keeper:
        assert keeper.uri == ""
        keeper.update(step=1)
        assert [each.step for each in live_statuses()] == [1]
    assert find_statuses("s3://bucket") == []
