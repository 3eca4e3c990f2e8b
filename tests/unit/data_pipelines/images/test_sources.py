"""Finding captioned images: layouts told apart by their files, and the generated set."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from data_pipelines.errors import ConfigError
from data_pipelines.images.sources import find_examples
from data_pipelines.images.specs import CaptionedSpec, ImageSpec
from tests.support.captioned import captions, find, imagefolder, touch

EMOJI = Path(__file__).parents[5] / "shared/data/noto_emoji_128"


def test_unknown_folders(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.root: there is no folder .*nowhere; correct the path"):
        find(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match=r"data\.root: name the folder"):
        find_examples(CaptionedSpec(), tmp_path)
    with pytest.raises(ConfigError, match=r"It holds: nothing\. Looked for:\n  imagefolder .*metadata\.jsonl"):
        find(tmp_path)
    touch(tmp_path, "a.png", "b.png")
    with pytest.raises(ConfigError, match=r"2 images without any caption\. a\.png, b\.png"):
        find(tmp_path)
    for layout in ("imagefolder", "sidecar", "parquet", "webdataset"):
        with pytest.raises(ConfigError, match=rf"has nothing of layout `{layout}`.*(?s:.*)name another data\.layout"):
            find(tmp_path, layout)


def test_a_layout_without_examples_is_a_problem(tmp_path: Path) -> None:
    imagefolder(tmp_path)
    assert [problem.rule for problem in find(tmp_path).problems] == ["empty-folder"]


def test_links_to_folders_are_followed_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = touch(tmp_path / "root", "a.png")
    imagefolder(root, {"file_name": "a.png", "caption": "a"})
    elsewhere = touch(tmp_path / "elsewhere", "sub/b.png", "sub/.hidden.png")
    imagefolder(elsewhere, {"file_name": "sub/b.png", "caption": "b"})
    (root / "z_linked").symlink_to(elsewhere, target_is_directory=True)
    (root / "loop").symlink_to(root, target_is_directory=True)
    (elsewhere / "sub" / "up").symlink_to(elsewhere, target_is_directory=True)
    (root / "twice").symlink_to(elsewhere, target_is_directory=True)
    (root / "gone").symlink_to(tmp_path / "nowhere")
    with caplog.at_level(logging.WARNING):
        found = captions(find(root))
    assert sorted(found.values()) == ["a", "b"], "each image once, however many links lead to it"
    assert "loop: links to a folder that is part of the data set already (.), skipped" in caplog.text
    assert "gone: links to nothing, skipped" in caplog.text


def test_shapes_are_written_once(tmp_path: Path) -> None:
    spec = CaptionedSpec(layout="shapes", num_shapes=16, resolution=32)
    found = find_examples(spec, tmp_path)
    assert len(found.examples) == 16
    assert found.name == "generated shapes"
    assert found.problems == ()
    (folder,) = tmp_path.iterdir()  # nothing temporary is left
    before = (folder / "metadata.jsonl").stat().st_mtime_ns
    assert find_examples(spec, tmp_path) == found
    assert (folder / "metadata.jsonl").stat().st_mtime_ns == before
    find_examples(spec.model_copy(update={"shapes_seed": 1}), tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


def test_images_need_no_caption_where_none_are_asked_for(tmp_path: Path) -> None:
    root = imagefolder(tmp_path, {"file_name": "a.png", "caption": "a"}, images=("a.png", "b/c.JPG", "notes.txt"))
    found = find_examples(ImageSpec(root=str(root)), tmp_path / "unused")
    assert {example.example_id: example.caption for example in found.examples} == {"a": "", "b/c": ""}
    assert found.problems == ()
    touch(root, "d.heic")
    found = find_examples(ImageSpec(root=str(root)), tmp_path / "unused")
    assert [problem.rule for problem in found.problems] == ["unknown-format"]
    with pytest.raises(ConfigError, match=r"images has no captions, which this pipeline needs"):
        find_examples(CaptionedSpec(root=str(root), layout="images"), tmp_path)
    named = find_examples(ImageSpec(root=str(root), layout="imagefolder"), tmp_path)
    assert [example.caption for example in named.examples] == ["a"], "asked for, captions are read"


@pytest.mark.skipif(not EMOJI.is_dir(), reason=f"{EMOJI} is not here")
def test_emoji() -> None:
    found = find(EMOJI)
    assert (len(found.examples), found.problems) == (3519, ())
    assert found.examples[0].example_id == "images/u0023"
    assert found.examples[0].caption == "an emoji of number"
