"""Encoded bytes of images in files, rows and tar members, and why they cannot be read."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_pipelines.errors import DataError
from data_pipelines.images.examples import Example
from data_pipelines.images.parts import PartReader


def test_parts_that_cannot_be_read(tmp_path: Path) -> None:
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    values = [{"bytes": b"x" * 9, "path": None}, {"bytes": None, "path": "u/a.png"}, None]
    pq.write_table(pa.table({"image": pa.array(values, kind), "caption": ["a"] * 3}), tmp_path / "p.parquet")
    (tmp_path / "f.png").write_bytes(b"x" * 9)
    parquet, file = str(tmp_path / "p.parquet"), str(tmp_path / "f.png")
    assert PartReader(9).read(Example("a", parquet, 0, "")) == b"x" * 9
    assert PartReader(9).read(Example("a", file, "m", "", (2, 3))) == b"xxx"
    for example, limit, rule, words in [
        (Example("a", parquet, 0, ""), 8, "too-large", "9 bytes or more, above the 8"),
        (Example("a", parquet, 1, ""), 9, "image-missing", "only the path 'u/a.png'"),
        (Example("a", parquet, 2, ""), 9, "image-missing", "no image bytes"),
        (Example("a", file, None, ""), 8, "too-large", "9 bytes or more"),
        (Example("a", file, "m", "", (0, 900)), 8, "too-large", "900 bytes or more"),
        (Example("a", str(tmp_path / "gone.png"), None, ""), 9, "file-missing", "no such file"),
        (Example("a", str(tmp_path / "gone.parquet"), 0, ""), 9, "file-missing", "no such file"),
    ]:
        with pytest.raises(DataError) as raised:
            PartReader(limit).read(example)
        (problem,) = raised.value.problems
        assert (problem.rule, problem.path) == (rule, example.where)
        assert words in problem.message


def test_rows_of_a_large_group_are_read_a_few_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In any order: pandas writes one group, and every shard starts somewhere in it."""
    values = [str(row).encode() for row in range(25)]
    pq.write_table(pa.table({"image": values, "caption": ["a"] * 25}), tmp_path / "p.parquet", row_group_size=20)
    monkeypatch.setattr("data_pipelines.images.parts._ROWS_AT_ONCE", 4)
    reader = PartReader(9)
    for row in (0, 1, 7, 19, 20, 24, 22, 3, 2, 21):
        assert reader.read(Example("a", str(tmp_path / "p.parquet"), row, "")) == values[row]
        assert reader._rows is not None
        assert len(reader._rows._values) <= 4


def test_a_row_group_that_is_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pq.write_table(pa.table({"image": [b"x" * 999], "caption": ["a"]}), tmp_path / "p.parquet")
    monkeypatch.setattr("data_pipelines.images.parts.MAX_ROW_GROUP_BYTES", 10)
    with pytest.raises(DataError, match="row groups of 1000"):
        PartReader(9).read(Example("a", str(tmp_path / "p.parquet"), 0, ""))
