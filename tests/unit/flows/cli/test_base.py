"""Options that commands share."""

from __future__ import annotations

import pytest
import typer

from data_pipelines.errors import ConfigError
from flows.cli.base import parse_gigabytes, parse_within


@pytest.mark.parametrize(
    ("text", "size"), [("8", 8), ("8GB", 8), ("0.5 gb", 0.5), ("512MB", 0.512), (" 12 ", 12), (8.0, 8)]
)
def test_sizes_of_memory_with_and_without_unit(text: str, size: float) -> None:
    assert parse_gigabytes(text) == pytest.approx(size)


@pytest.mark.parametrize("text", ["", "8GiB", "-1", "0", "50MB", "GB", "1.2.3", "nan"])
def test_other_texts_are_refused_with_the_way_to_write_it(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="write a size as 8, 8GB or 512MB"):
        parse_gigabytes(text)


def test_times_are_read_as_in_configurations() -> None:
    assert parse_within("1h30m") == 5400


@pytest.mark.parametrize("text", ["0m", "30", "-5m", "soon", ""])
def test_other_times_are_refused_by_the_name_of_the_option(text: str) -> None:
    with pytest.raises(ConfigError, match=r"--within: write a (time|duration)"):
        parse_within(text)
