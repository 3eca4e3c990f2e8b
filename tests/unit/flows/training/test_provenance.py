"""What a model was trained on, its base included, and what must therefore not be held out."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_pipelines.errors import ConfigError
from data_pipelines.shards.index import index_table, read_table, write_table
from flows.stages.attempt import Attempt
from flows.training.provenance import TRAINED_ON, check_no_leak, write_trained_on


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
