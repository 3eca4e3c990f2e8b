"""What a model was trained on, its base included, and what must therefore not be held out."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_pipelines.errors import ConfigError, InputError
from data_pipelines.shards.index import index_table, read_table, write_table
from flows.registry.champion import Champion
from flows.registry.models import TAG_PREFIX
from flows.stages.attempt import Attempt
from flows.stages.record import write_record
from flows.training.figures import TrainingFigures
from flows.training.provenance import TRAINED_ON, check_no_leak, check_unseen, write_trained_on
from tests.support.records import finished


def index(folder: Path, name: str, **splits: str) -> str:
    """Write an index of cases by split; a case's subject is its first letter, its pixels are its name's."""
    rows = [
        {"case_id": case, "subject": case[0], "pixel_sha256": f"pixels of {case}", "split": split}
        for case, split in splits.items()
    ]
    write_table(str(folder / name), index_table(rows))
    return str(folder / name)


def trained(folder: Path, index_uri: str, base: str | None = None) -> str:
    attempt = Attempt(str(folder), "key", f"attempt-{Path(index_uri).name}")
    write_trained_on(attempt, index_uri, base)
    return attempt.output(TRAINED_ON)


def test_the_samples_of_the_base_are_inherited(tmp_path: Path) -> None:
    first = trained(tmp_path, index(tmp_path, "first", a1="train", b1="train", c1="val"))
    assert read_table(first)["case_id"].to_pylist() == ["a1", "b1"]
    second = trained(tmp_path, index(tmp_path, "second", a1="train", d1="train", c1="val"), first)
    assert read_table(second)["case_id"].to_pylist() == ["a1", "b1", "d1"]
    with pytest.raises(ConfigError, match=r"version 3 was trained on 1 of 1 held-out samples \(b1\)"):
        check_no_leak(index(tmp_path, "third", a1="train", b1="val"), second, "version 3")


@pytest.mark.parametrize("leaked", ["a1", "a2"], ids=["the same case", "another scan of the subject"])
def test_another_fold_leaks(leaked: str, tmp_path: Path) -> None:
    base = trained(tmp_path, index(tmp_path, "base", a1="train", b1="val"))
    check_no_leak(index(tmp_path, "same", a1="train", b1="val", c1="train"), base, "the champion")
    with pytest.raises(ConfigError, match=rf"the champion was trained on 1 of 2 .*\({leaked}\)"):
        check_no_leak(index(tmp_path, "other", **{leaked: "val", "c1": "val", "b1": "train"}), base, "the champion")


def test_a_renamed_image_leaks(tmp_path: Path) -> None:
    base = trained(tmp_path, index(tmp_path, "base", a1="train", b1="val"))
    rows = [{"case_id": "new", "pixel_sha256": "pixels of a1", "split": "val"}]  # of images, which have no subject
    write_table(str(tmp_path / "renamed"), index_table(rows))
    with pytest.raises(ConfigError, match=r"1 of 1 held-out samples \(new\)"):
        check_no_leak(str(tmp_path / "renamed"), base, "the champion")


def test_a_champion_that_saw_a_held_out_sample_is_not_compared(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Fold 0, then fold 1 under the same name: the champion was trained on the cases that it is to be scored on."""
    stage = tmp_path / "train" / "k"
    stage.mkdir(parents=True)
    trained_on = trained(stage, index(tmp_path, "fold0", a1="train", b1="train", c1="val"))
    seen = str(Path(trained_on).relative_to(stage))
    record = finished("train", TrainingFigures(step=7, run_id=None, num_workers=1), str(stage), trained_on=seen)
    write_record(record.model_copy(update={"key": "k"}))
    champion = Champion("organ", "3", "models:/m-1", {f"{TAG_PREFIX}train_key": "k"})
    check_unseen(index(tmp_path, "grown", a1="train", d1="train", c1="val"), champion, str(tmp_path))
    assert not caplog.text
    with pytest.raises(InputError, match=r"it was trained on 1 of 2 held-out samples \(b1\): its scores would be too"):
        check_unseen(index(tmp_path, "fold1", a1="train", b1="val", c1="val"), champion, str(tmp_path))
    check_unseen(index(tmp_path, "fold2", b1="val"), Champion("organ", "4", "models:/m-2", {}), str(tmp_path))
    assert "organ version 4: its training is not in" in caplog.text
