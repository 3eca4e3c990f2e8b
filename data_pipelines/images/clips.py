"""Frames of one clip, which stay on one side of the split: neighbouring frames show nearly the same."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from data_pipelines.errors import ConfigError


def find_clips(rows: Iterable[Mapping[str, Any]], pattern: str) -> dict[str, str]:
    """Map the id of each image, and of those that are its copies, to its clip: the first group of a regular expression,
    or all of its match. Without a pattern each image is a clip.

    Raises ConfigError where an id does not match.
    """
    ids = [name for row in rows for name in (row["case_id"], *row.get("copies", ()))]
    if not pattern:
        return {name: name for name in ids}
    matches = {name: re.search(pattern, name) for name in ids}
    if strangers := [name for name, match in matches.items() if match is None]:
        raise ConfigError(
            f"data.clip_pattern: {pattern!r} is not found in {len(strangers)} of {len(matches)} image ids: "
            f"{', '.join(strangers[:3])}; correct it, or leave it out"
        )
    return {name: _clip(match) for name, match in matches.items() if match is not None}


def _clip(match: re.Match[str]) -> str:
    return match[1] if match.re.groups and match[1] is not None else match[0]
