"""One error for whatever a decoder raises."""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path

import pytest

from data_pipelines.errors import ConfigError, DataError
from data_pipelines.files.reading import named_errors, unreadable


@pytest.mark.parametrize(
    ("error", "rule", "words"),
    [
        (EOFError("Compressed file ended before the end-of-stream marker"), "truncated-gzip", "its end marker"),
        (EOFError("no more"), "truncated-file", "ends too early: no more"),
        (gzip.BadGzipFile("CRC check failed"), "corrupt-gzip", "CRC check failed"),
        (zlib.error("Error -3"), "corrupt-gzip", "Error -3"),
        (FileNotFoundError("a"), "file-missing", "no such file"),
        (PermissionError(13, "Permission denied"), "no-permission", "may not be read"),
        (MemoryError(), "too-large", "does not fit into memory"),
        (ModuleNotFoundError("No module named 'codec'", name="codec"), "missing-decoder", "No module named 'codec'"),
        (struct.error("unpack requires 4 bytes"), "unreadable", "error: unpack requires 4 bytes"),
        (ValueError("x" * 999), "unreadable", "ValueError: xxx"),
    ],
)
def test_errors_of_decoders_are_named(error: Exception, rule: str, words: str) -> None:
    with pytest.raises(DataError) as caught, named_errors(Path("a.nii")):
        raise error
    (problem,) = caught.value.problems
    assert (problem.rule, problem.path) == (rule, "a.nii")
    assert words in problem.message
    assert len(problem.message) < 350
    assert problem.remedy


@pytest.mark.parametrize("error", [ConfigError("x"), unreadable("rule", Path("b"), "m", "r"), KeyboardInterrupt()])
def test_errors_that_have_a_name_pass(error: BaseException) -> None:
    with pytest.raises(type(error)) as caught, named_errors(Path("a")):
        raise error
    assert caught.value is error
