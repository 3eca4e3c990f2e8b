"""The sharding stage of captioned images: generated shapes end up in batches, once."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_pipelines import storage
from data_pipelines.errors import DataError
from data_pipelines.images.shapes import check_image, draw, parse_caption, write_shapes
from data_pipelines.images.specs import CaptionedSpec
from data_pipelines.loading.loader import ImageSamples
from data_pipelines.shards.index import read_table
from data_pipelines.shards.reader import ShardReader
from flows.sharding.images import shard_stage
from flows.stages.shards import read_problems, shards_uri
from flows.stages.stage import Done, run_stage


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    write_shapes(tmp_path / "raw", 40, 0, 32)
    return tmp_path / "raw"


def run(raw: Path, tmp_path: Path, **changes: object) -> Done:
    spec = CaptionedSpec.model_validate({"root": str(raw), "resolution": 32, "val_fraction": 0.2, **changes})
    root = str(tmp_path / "storage")
    return run_stage(shard_stage(spec, root), root)


def test_samples_in_batches_show_what_their_captions_say(raw: Path, tmp_path: Path) -> None:
    record = run(raw, tmp_path).record
    index = read_table(record.output("index"))
    assert record.figures.num_train + record.figures.num_val == 40
    assert record.figures.num_val > 0
    samples = ImageSamples(ShardReader(index, shards_uri(record)))
    for row, (caption, text) in enumerate(zip(index["caption"].to_pylist(), _texts(samples.reader), strict=True)):
        assert caption == text
        pixels = samples.pixels([row])[0].permute(1, 2, 0).numpy()
        assert all(check_image(np.ascontiguousarray(pixels), caption))


def _texts(reader: ShardReader) -> list[str]:
    return [bytes(reader.read(row, "txt")).decode() for row in range(reader.num_samples)]


def test_again_it_is_found_and_new_images_cost_only_themselves(raw: Path, tmp_path: Path) -> None:
    first = run(raw, tmp_path)
    assert (first.cached, first.record.figures.num_new) == (False, 40)
    assert run(raw, tmp_path).cached
    before = {row["case_id"]: row["split"] for row in read_table(first.record.output("index")).to_pylist()}
    caption = "a large red square above a small green circle"
    pixels = draw(parse_caption(caption), np.random.default_rng(99), 32)
    Image.fromarray(pixels).save(raw / "images" / "more.png")
    with (raw / "metadata.jsonl").open("a") as metadata:
        metadata.write(json.dumps({"file_name": "images/more.png", "caption": caption}) + "\n")
    grown = run(raw, tmp_path)
    assert (grown.cached, grown.record.figures.num_new) == (False, 1)
    after = {row["case_id"]: row["split"] for row in read_table(grown.record.output("index")).to_pylist()}
    assert before.items() < after.items()


def test_an_unused_test_set_takes_no_image_away(tmp_path: Path) -> None:
    """Of equal pixels the first is kept, and ``test`` comes first by name: its copies must not count."""
    write_split(tmp_path / "raw", {"test": (1, 2, 9), "train": (1, 3, 4), "val": (2, 3)})
    record = run(tmp_path / "raw", tmp_path).record
    index = read_table(record.output("index")).to_pylist()
    assert {row["case_id"]: row["split"] for row in index} == {
        "train/1": "train",
        "train/3": "train",
        "train/4": "train",
        "val/2": "val",
    }
    assert record.figures.left_out == {"duplicate": 1, "test": 3}
    (tmp_path / "raw/test/9.png").write_bytes(b"damaged, and nothing reads it")
    assert run(tmp_path / "raw", tmp_path).cached


def write_split(root: Path, sides: dict[str, tuple[int, ...]]) -> None:
    """Folders of images named by their content."""
    root.mkdir()
    lines = []
    for side, names in sides.items():
        (root / side).mkdir()
        for name in names:
            pixels = np.random.default_rng(name).integers(0, 256, (32, 32, 3), np.uint8)
            Image.fromarray(pixels).save(root / side / f"{name}.png")
            lines.append(json.dumps({"file_name": f"{side}/{name}.png", "caption": f"{side} {name}"}))
    (root / "metadata.jsonl").write_text("\n".join(lines))


def test_images_that_cannot_be_read_are_set_aside_or_stop_the_stage(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = storage.digest

    def digest(uri: str) -> str:
        if uri.endswith("000003.png"):
            raise PermissionError(13, "Permission denied")
        return original(uri)

    monkeypatch.setattr(storage, "digest", digest)
    with pytest.raises(DataError, match="no-permission"):
        run(raw, tmp_path)
    record = run(raw, tmp_path, on_error="quarantine").record
    assert (record.figures.num_quarantined, record.figures.num_train + record.figures.num_val) == (1, 39)
    assert [problem.rule for problem in read_problems(record)] == ["no-permission"]


def test_bad_images_stop_the_stage_or_are_set_aside(raw: Path, tmp_path: Path) -> None:
    broken = raw / "images" / "000003.png"
    broken.write_bytes(broken.read_bytes()[:60])
    with pytest.raises(DataError, match="000003"):
        run(raw, tmp_path)
    record = run(raw, tmp_path, on_error="quarantine").record
    assert record.figures.num_quarantined == 1
    assert [Path(problem.path).name for problem in read_problems(record)] == ["000003.png"]
    assert record.figures.num_train + record.figures.num_val == 39
