"""The index: typed columns that are declared once, and where a row says that its shard lies."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from data_pipelines.shards.index import (
    COLUMNS,
    build_index,
    index_table,
    is_adopted,
    read_table,
    shard_uri,
    write_table,
)


def test_columns_have_their_declared_types_and_null_where_a_row_lacks_them() -> None:
    table = index_table([{"key": "a", "spacing": [1, 2.5], "offset:txt": 512}, {"key": "b", "width": 3}])
    assert table.schema == pa.schema(
        [("key", pa.string()), ("spacing", pa.list_(pa.float64())), ("offset:txt", pa.int64()), ("width", pa.int64())]
    )
    assert table.to_pylist() == [
        {"key": "a", "spacing": [1.0, 2.5], "offset:txt": 512, "width": None},
        {"key": "b", "spacing": None, "offset:txt": None, "width": 3},
    ]


def test_a_column_of_nulls_keeps_its_type() -> None:
    assert index_table([{"latent_mean": None}]).schema.field("latent_mean").type == pa.float64()


def test_an_unknown_column_is_refused() -> None:
    with pytest.raises(KeyError, match="colour"):
        index_table([{"key": "a", "colour": "red"}])


@pytest.mark.parametrize(("column", "value"), [("width", "wide"), ("key", 7), ("spacing", "1x1")])
def test_a_value_of_another_type_is_refused(column: str, value: object) -> None:
    with pytest.raises((pa.ArrowInvalid, pa.ArrowTypeError)):
        index_table([{column: value}])


def test_cases_in_no_split_are_skipped() -> None:
    rows = [{"key": name, "case_id": name} for name in ("a", "b", "c")]
    index = build_index(rows, {"c": "val", "a": "train"})
    assert [(row["case_id"], row["split"]) for row in index.to_pylist()] == [("a", "train"), ("c", "val")]
    assert index.schema.field("split").type == COLUMNS["split"]


def test_tables_come_back_whole_or_in_part(tmp_path: Path) -> None:
    table = index_table([{"key": "a", "width": 3}])
    write_table(str(tmp_path / "new" / "index.parquet"), table)
    assert read_table(str(tmp_path / "new" / "index.parquet")) == table
    assert read_table(str(tmp_path / "new" / "index.parquet"), ["width"]).to_pylist() == [{"width": 3}]


def test_shards_lie_below_the_folder_or_where_the_user_left_them() -> None:
    assert shard_uri("s3://bucket/shards", "a.tar") == "s3://bucket/shards/a.tar"
    assert shard_uri("s3://bucket/shards", "/data/0.tar") == "/data/0.tar"
    assert [is_adopted(name) for name in ("a.tar", "/data/0.tar")] == [False, True]
