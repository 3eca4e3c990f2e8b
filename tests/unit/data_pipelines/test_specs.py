from __future__ import annotations

import pytest
from pydantic import TypeAdapter, ValidationError

from data_pipelines.specs import Duration, duration_text

DURATION = TypeAdapter(Duration)


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("30m", 1800), ("1h30m", 5400), ("1.5h", 5400), (" 2m5s ", 125), (45, 45)]
)
def test_durations(text: object, seconds: float) -> None:
    assert DURATION.validate_python(text) == seconds


@pytest.mark.parametrize("text", ["", "30", "30 m", "m", "5m1h", "30min", "-5m", "0s", 0, -1])
def test_other_texts_are_refused(text: object) -> None:
    with pytest.raises(ValidationError):
        DURATION.validate_python(text)


@pytest.mark.parametrize(("seconds", "text"), [(5400, "1h30m"), (125, "2m5s"), (0.5, "0.5s"), (0, "0s"), (3600, "1h")])
def test_durations_as_text(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text
