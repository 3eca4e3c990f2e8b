"""Listing of versions: all of them, however many pages the registry gives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flows.registry.models import _all_pages


class Page(list[Any]):
    """A page of a search, with the token of the next one."""

    def __init__(self, entries: Sequence[int], token: str | None) -> None:
        super().__init__(entries)
        self.token = token


def test_every_page_is_read() -> None:
    entries = list(range(2500))

    def search(max_results: int, page_token: str | None) -> Page:
        start = int(page_token or 0)
        end = start + max_results
        return Page(entries[start:end], str(end) if end < len(entries) else None)

    assert _all_pages(search) == entries
