"""Parquet files, and every rule that their rows can break."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_pipelines.images.parts import PartReader
from tests.support.captioned import captions, find, listed, write_parquet


@pytest.mark.parametrize("caption", ["caption", "text", "TEXT"])
@pytest.mark.parametrize(
    ("image", "kind"),
    [
        ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        ("image", pa.binary()),
        ("jpg", pa.large_binary()),
        ("bytes", pa.binary()),
    ],
)
def test_parquet(tmp_path: Path, caption: str, image: str, kind: pa.DataType) -> None:
    value = {"bytes": b"x", "path": "p"} if pa.types.is_struct(kind) else b"x"
    columns = {image: pa.array([value, value], kind), caption: ["one", " two "], "label": [1, 2]}
    path = write_parquet(tmp_path / "data/train.parquet", **columns)
    found = find(tmp_path)
    assert captions(found) == {"data/train/000000": "one", "data/train/000001": "two"}
    assert [(example.image, example.part) for example in found.examples] == [(str(path), 0), (str(path), 1)]
    assert found.metadata == {"layout": "parquet"}


def test_parquet_faults(tmp_path: Path) -> None:
    images = pa.array([b"x"] * 4, pa.binary())
    texts = pa.array([b"fine", None, b"caf\xe9", b" "], pa.binary()).cast(pa.string(), safe=False)
    write_parquet(tmp_path / "rows.parquet", image=images, caption=texts)
    write_parquet(tmp_path / "noimage.parquet", url=["u"], caption=["c"])
    write_parquet(tmp_path / "nocaption.parquet", image=images)
    write_parquet(tmp_path / "numbers.parquet", image=images, caption=[[1]] * 4)
    whole = (tmp_path / "rows.parquet").read_bytes()
    (tmp_path / "cut.parquet").write_bytes(whole[: len(whole) // 2])
    found = find(tmp_path)
    assert captions(found) == {"rows/000000": "fine"}
    assert listed(found) == {
        "rows/000001": "caption-not-text",
        "rows/000002": "caption-not-utf8",
        "rows/000003": "caption-empty",
        "noimage": "no-image-column",
        "nocaption": "caption-missing",
        "numbers": "caption-not-text",
        "cut": "unreadable",
    }
    by_id = {problem.case_id: problem for problem in found.problems}
    assert by_id["rows/000001"].path.endswith("rows.parquet: row 1")
    assert "url: string, caption: string" in by_id["noimage"].message


BYTES = [b"one", b"two"]
TEXTS = ["a", "b"]


@pytest.mark.parametrize(
    ("image", "caption"),
    [
        (pa.array(BYTES, pa.binary_view()), pa.array(TEXTS, pa.string_view())),
        (pa.array(BYTES).dictionary_encode(), pa.array(TEXTS).dictionary_encode()),
        (pa.array(BYTES, pa.large_binary()), pa.array(TEXTS, pa.large_string())),
        (pa.array([{"bytes": data} for data in BYTES]), pa.array(TEXTS).dictionary_encode()),
        (pa.array([{"bytes": b} for b in BYTES], pa.struct([("bytes", pa.binary_view())])), pa.array(TEXTS)),
    ],
    ids=["views", "dictionaries", "large", "struct", "struct of views"],
)
def test_every_type_of_bytes_and_text_is_read(tmp_path: Path, image: pa.Array, caption: pa.Array) -> None:
    write_parquet(tmp_path / "d.parquet", image=image, caption=caption)
    found = find(tmp_path)
    assert captions(found) == {"d/000000": "a", "d/000001": "b"}
    assert [PartReader(9).read(example) for example in found.examples] == BYTES


@pytest.mark.parametrize("kind", [pa.list_, pa.large_list, pa.list_view, lambda each: pa.list_(each, 2)])
@pytest.mark.parametrize("text", [pa.string(), pa.large_string()])
def test_lists_of_captions(tmp_path: Path, kind: object, text: pa.DataType) -> None:
    values = [["a", "b"], ["c", "c"], ["d", " "]]
    table = pa.table({"image": [b"x"] * 3, "caption": pa.array(values, kind(text))})  # type: ignore[operator]
    pq.write_table(table, tmp_path / "l.parquet")
    found = find(tmp_path)
    assert [(e.caption, e.more_captions) for e in found.examples] == [("a", ("b",)), ("c", ())]
    assert listed(found) == {"l/000002": "caption-empty"}


def test_lists_without_captions_and_null_lists(tmp_path: Path) -> None:
    write_parquet(tmp_path / "l.parquet", image=[b"x"] * 3, caption=[[], None, ["a"]])
    found = find(tmp_path)
    assert captions(found) == {"l/000002": "a"}
    assert listed(found) == {"l/000000": "caption-empty", "l/000001": "caption-not-text"}
