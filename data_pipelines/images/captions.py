"""Captions of an image: one, or several of which training draws, without those that a filter skips."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from data_pipelines.images.specs import ImageSpec
from data_pipelines.shards.index import Row


def caption_reason(caption: str, spec: ImageSpec) -> str | None:
    """Return the field of the spec that skips this caption, if any."""
    if len(caption) < spec.min_caption_chars:
        return "min_caption_chars"
    return "max_caption_chars" if len(caption) > spec.max_caption_chars else None


def captions_of(row: Row, spec: ImageSpec) -> list[str]:
    """Return the captions of an image that training draws from, each once: those that the filters keep."""
    found = _split_lines((row["caption"], *row.get("more_captions", ())), spec)
    return [caption for caption in found if caption_reason(caption, spec) is None]


def loses_captions(row: Row, spec: ImageSpec) -> bool:
    """Tell whether the filters skip some of the captions of an image."""
    found = _split_lines((row["caption"], *row.get("more_captions", ())), spec)
    return any(caption_reason(caption, spec) for caption in found)


def captions_reason(captions: Sequence[str], spec: ImageSpec) -> str | None:
    """Return the field of the spec that skips the last of an image's captions, if it skips all."""
    reasons = [caption_reason(caption, spec) for caption in _split_lines(captions, spec)]
    return None if None in reasons else reasons[-1]


def _split_lines(captions: Iterable[str], spec: ImageSpec) -> list[str]:
    if spec.caption_lines == "whole":
        return list(dict.fromkeys(captions))
    lines = (line.strip() for caption in captions for line in caption.splitlines())
    return list(dict.fromkeys(line for line in lines if line)) or [""]  # without a caption: its only line is empty
