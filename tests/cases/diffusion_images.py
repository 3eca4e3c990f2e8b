"""Judges of cases of captioned images."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from data_pipelines.errors import DataError
from data_pipelines.images.captions import captions_of
from data_pipelines.images.examples import Examples
from data_pipelines.images.parts import PartReader
from data_pipelines.images.pictures import Picture, read_picture
from data_pipelines.images.sources import find_examples
from data_pipelines.images.specs import CaptionedSpec
from data_pipelines.images.splits import given_splits, split_examples
from tests.cases.files import Files
from tests.cases.verdict import Verdict
from unet_models.formats.clip_folder import Clip
from unet_models.networks.tokenizer import count_tokens

SIDE = 32
"""Resolution that the cases are read at, in pixels."""


def _find(root: Path, **fields: object) -> Examples:
    spec = CaptionedSpec.model_validate({"root": str(root), "resolution": SIDE, **fields})
    return find_examples(spec, root / "generated")


def _rules(found: Examples) -> str:
    rules = sorted({problem.rule for problem in found.problems})
    return f"{len(found.examples)} images" + (f", {', '.join(rules)}" if rules else "")


def _pictures(found: Examples) -> dict[str, Picture | str]:
    """Read every image; a bad one becomes the name of the rule that it breaks."""
    spec, reader = CaptionedSpec(resolution=SIDE), PartReader(1 << 26)
    read: dict[str, Picture | str] = {}
    for example in found.examples:
        try:
            picture = read_picture(reader.read(example), example.where, spec)
            read[example.example_id] = picture if isinstance(picture, Picture) else picture.reason
        except DataError as error:
            read[example.example_id] = error.problems[0].rule
    return read


def judge_colours(files: Files) -> Iterator[Verdict]:
    """Pixels are those of littleCMS, and no file is kept with another profile."""
    expected = np.load(files.out.with_suffix(".expected.npz"))
    read = _pictures(_find(files.out))
    for name in expected.files:
        picture = read[name]
        assert isinstance(picture, Picture)
        pixel = picture.pixels[0, 0]
        difference = int(np.abs(pixel.astype(int) - expected[name]).max())
        kept = "icc_profile" in Image.open(BytesIO(picture.encoded)).info
        seen = f"{pixel.tolist()}, {'profile kept' if kept else 'no profile'}"
        ok = difference <= 1 and not kept
        yield Verdict(f"02 {name}", f"sRGB {expected[name].tolist()}, no other profile kept", seen, ok)


def judge_lines(files: Files) -> Iterator[Verdict]:
    """Lines are one caption, or one each."""
    found = _find(files.out)
    for mode, expected in (("whole", 1), ("random", 3)):
        spec = CaptionedSpec(caption_lines=mode)  # type: ignore[arg-type]  # one of its values
        counts = {len(captions_of({"caption": example.caption}, spec)) for example in found.examples}
        yield Verdict(f"04 {mode}", f"{expected} captions of each image", f"{sorted(counts)}", counts == {expected})


def judge_formats(files: Files) -> Iterator[Verdict]:
    """AVIF and .caption are read; what has no caption is named."""
    expected = {
        "kohya": "3 images",
        "mixed": "4 images",
        "captionless": "3 images, caption-missing",
        "jsonl": "3 images",
    }
    for name, wanted in expected.items():
        found = _find(files.out / name)
        bad = [value for value in _pictures(found).values() if isinstance(value, str)]
        seen = _rules(found) + "".join(f", {rule}" for rule in bad)
        yield Verdict(f"05 {name}", wanted, seen, seen == wanted)


def judge_dots(files: Files) -> Iterator[Verdict]:
    """Dots in names are named, dots in folders are no trouble."""
    for name, wanted in {"dots": "1 images, dots-in-key", "folder": "3 images", "shared": "2 images"}.items():
        seen = _rules(_find(files.out / name))
        yield Verdict(f"06 {name}", wanted, seen, seen == wanted)


def judge_plain(files: Files) -> Iterator[Verdict]:
    """Good files are good."""
    seen = _rules(_find(files.out))
    yield Verdict("09", "12 images", seen, seen == "12 images")


def judge_given_splits(files: Files) -> Iterator[Verdict]:
    """The test half is not trained on."""
    for name in ("imagefolder", "parquet"):
        found = _find(files.out / name)
        rows = [{"case_id": example.example_id} for example in found.examples]
        sides = split_examples(rows, CaptionedSpec(), given_splits(found.examples))
        trained = {example.caption.split()[0] for example in found.examples if sides[example.example_id] == "train"}
        yield Verdict(f"13 {name}", "trained on train alone", f"trained on {sorted(trained)}", trained == {"train"})


def judge_parquet(files: Files) -> Iterator[Verdict]:
    """Every type is read or refused by its rule."""
    read = ("string_view", "binary_view", "dict_binary", "large_dict_view")
    refused = {
        "txt_column": "caption-missing",
        "prompt_column": "caption-missing",
        "list_of_images": "no-image-column",
        "null_type_caption": "caption-not-text",
        "path_only": "image-missing",
    }
    for name in read:
        seen = sum(isinstance(value, Picture) for value in _pictures(_find(files.out / name)).values())
        yield Verdict(f"14 {name}", "5 images read", f"{seen} images read", seen == 5)
    several = {len(example.more_captions) + 1 for example in _find(files.out / "list_captions").examples}
    yield Verdict("14 list_captions", "2 captions of each image", f"{sorted(several)}", several == {2})
    for name, rule in refused.items():
        found = _find(files.out / name)
        rules = {problem.rule for problem in found.problems} | {
            value for value in _pictures(found).values() if isinstance(value, str)
        }
        yield Verdict(f"14 {name}", f"refused: {rule}", f"{sorted(rules)}", rule in rules)


def judge_names(files: Files) -> Iterator[Verdict]:
    """Names and texts are read or refused by their rules."""
    expected = {
        "nfd": "3 images",
        "colon": "3 images",
        "backslash": "2 images, caption-missing, image-missing",
        "csv_quote": "3 images, caption-missing, unreadable-line",
        "utf16": "0 images, caption-not-utf8",
        "utf16le_nobom": "0 images, caption-not-utf8",
        "img2dataset_files": "2 images, caption-empty",
        "tags_json": "0 images, caption-missing",
        "upper": "3 images",
        "mask": "2 images, caption-missing",
    }
    for name, wanted in expected.items():
        seen = _rules(_find(files.out / name))
        yield Verdict(f"15 {name}", wanted, seen, seen == wanted)


def judge_long(files: Files) -> Iterator[Verdict]:
    """Captions that are longer than the text encoder reads are counted."""
    clip = Clip(files.encoders / "clip")
    captions = [example.caption for example in _find(files.out).examples]
    cut = sum(count > clip.tokenizer.model_max_length for count in count_tokens(clip.tokenizer, captions))
    yield Verdict("20", "captions beyond 77 tokens are counted", f"{cut} of {len(captions)}", cut == len(captions))


def judge_modes(files: Files) -> Iterator[Verdict]:
    """Images of every mode are upright; damaged ones are named."""
    read = _pictures(_find(files.out))
    expected = {"cut": "truncated-file", "crc": "unreadable"}
    for name, value in read.items():
        wanted = expected.get(name, "read")
        seen = value if isinstance(value, str) else "read"
        turned = name.startswith("o6") or name == "mpo"
        if turned and isinstance(value, Picture):
            top, bottom = value.pixels[4, 12].tolist(), value.pixels[28, 12].tolist()
            seen = "read" if top[0] > 200 > bottom[0] else f"not upright: {top} above {bottom}"
        yield Verdict(f"24 {name}", wanted, seen, seen == wanted)
