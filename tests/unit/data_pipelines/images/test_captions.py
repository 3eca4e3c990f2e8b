"""Captions of an image: whole or by line, each once, without those that a filter skips."""

from __future__ import annotations

import pytest

from data_pipelines.images.captions import captions_of, captions_reason, loses_captions
from data_pipelines.images.specs import CaptionedSpec

LINES = "a red fox\n\n fox, red \r\na red fox\n"


@pytest.mark.parametrize(
    ("lines", "expected"), [("whole", [LINES, "two\nlines"]), ("random", ["a red fox", "fox, red", "two", "lines"])]
)
def test_lines_are_one_caption_or_several(lines: str, expected: list[str]) -> None:
    spec = CaptionedSpec(caption_lines=lines)  # type: ignore[arg-type]
    assert captions_of({"caption": LINES, "more_captions": ["two\nlines"]}, spec) == expected
    assert captions_of({"caption": "one"}, spec) == ["one"]


def test_filters_look_at_every_caption() -> None:
    spec = CaptionedSpec(caption_lines="random", min_caption_chars=4, max_caption_chars=8)
    assert captions_of({"caption": "fox\nfoxes\na fox in the snow"}, spec) == ["foxes"]
    assert loses_captions({"caption": "fox\nfoxes"}, spec)
    assert loses_captions({"caption": "foxes", "more_captions": ["fox"]}, spec)
    assert not loses_captions({"caption": "foxes\nred fox"}, spec)
    assert captions_reason(["fox\nfoxes\na fox in the snow"], spec) is None
    assert captions_reason(["fox", "a fox in the snow"], spec) == "max_caption_chars"
    assert captions_reason(["fox"], spec) == "min_caption_chars"
