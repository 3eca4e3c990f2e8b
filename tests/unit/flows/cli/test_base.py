"""Options that commands share."""

from __future__ import annotations

import pytest
import typer

from flows.cli.base import parse_gigabytes


@pytest.mark.parametrize(
    ("text", "size"), [("8", 8), ("8GB", 8), ("0.5 gb", 0.5), ("512MB", 0.512), (" 12 ", 12), (8.0, 8)]
)
def test_sizes_of_memory_with_and_without_unit(text: str, size: float) -> None:
    assert parse_gigabytes(text) == pytest.approx(size)


@pytest.mark.parametrize("text", ["", "8GiB", "-1", "0", "50MB", "GB", "1.2.3", "nan"])
def test_other_texts_are_refused_with_the_way_to_write_it(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="write a size as 8, 8GB or 512MB"):
        parse_gigabytes(text)
