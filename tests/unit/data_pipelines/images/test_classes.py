"""Classes of images: the folder's name, or a column; one that is missing is a problem by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_pipelines.errors import ConfigError
from data_pipelines.images.examples import Examples
from data_pipelines.images.sources import find_examples
from data_pipelines.images.specs import CaptionedSpec
from tests.support.captioned import imagefolder, listed, touch, write_parquet, write_tar


def find(root: Path, class_from: str) -> Examples:
    return find_examples(CaptionedSpec(root=str(root), class_from=class_from), root / "unused")


def classes(found: Examples) -> dict[str, str]:
    return {example.example_id: example.class_name for example in found.examples}


def test_folders_name_classes_in_every_layout(tmp_path: Path) -> None:
    root = touch(tmp_path / "loose", "train/cat/1.png", "train/dog/2.png", "3.png")
    for name in ("train/cat/1", "train/dog/2", "3"):
        (root / f"{name}.txt").write_text("a picture")
    found = find(root, "folder")
    assert classes(found) == {"train/cat/1": "cat", "train/dog/2": "dog"}
    assert listed(found) == {"3": "class-missing"}
    write_tar(tmp_path / "tars" / "0.tar", {"cat/1.png": b"x", "cat/1.txt": b"a cat"})
    assert classes(find(tmp_path / "tars", "folder")) == {"0/cat/1": "cat"}
    assert classes(find(tmp_path / "tars", "")) == {"0/cat/1": ""}


def test_a_class_is_never_the_name_of_an_archive(tmp_path: Path) -> None:
    members = {"1.png": b"x", "1.txt": b"t", "./dog/2.png": b"x", "./dog/2.txt": b"t"}
    write_tar(tmp_path / "tars" / "cat" / "0.tar", members)
    found = find(tmp_path / "tars", "folder")
    assert classes(found) == {"cat/0/dog/2": "dog"}
    assert listed(found) == {"cat/0/1": "class-missing"}
    for name in ("cow/p", "q"):
        write_parquet(tmp_path / "rows" / f"{name}.parquet", image=[b"x"], text=["t"])
    found = find(tmp_path / "rows", "folder")
    assert classes(found) == {"cow/p/000000": "cow"}
    assert listed(found) == {"q/000000": "class-missing"}


def test_a_column_names_classes(tmp_path: Path) -> None:
    entries = [{"file_name": f"{i}.png", "text": "t", "kind": kind} for i, kind in enumerate([" cat ", 7, None, True])]
    found = find(imagefolder(tmp_path / "a", *entries, images=("0.png", "1.png", "2.png", "3.png")), "kind")
    assert classes(found) == {"0": "cat", "1": "7"}
    assert listed(found) == {"2": "class-missing", "3": "class-missing"}
    write_parquet(tmp_path / "b" / "p.parquet", image=[b"x", b"y"], text=["s", "t"], label=[3, 4])
    assert classes(find(tmp_path / "b", "label")) == {"p/000000": "3", "p/000001": "4"}
    with pytest.raises(
        ConfigError, match=r"data.class_from: .*p\.parquet has no column 'kind'; its columns: \['image'"
    ):
        find(tmp_path / "b", "kind")


def test_a_layout_without_columns_says_what_to_do(tmp_path: Path) -> None:
    root = touch(tmp_path, "1.png")
    (root / "1.txt").write_text("a picture")
    with pytest.raises(ConfigError, match=r"layout sidecar has no columns.*data.class_from=folder"):
        find(root, "label")


def test_generated_shapes_have_one(tmp_path: Path) -> None:
    spec = CaptionedSpec(layout="shapes", num_shapes=16, resolution=8, class_from="shape")
    found = find_examples(spec, tmp_path)
    assert {example.class_name for example in found.examples} == {"circle", "square", "triangle"}
    assert all(example.class_name in example.caption for example in found.examples)
