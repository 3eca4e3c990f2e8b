"""Headless Chromium: the system's, else the one that ``playwright install chromium`` fetched."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Browser

MISSING = "no Chromium: apt-get install chromium, or playwright install --with-deps chromium"


@contextmanager
def open_browser() -> Iterator[Browser | None]:
    """Yield the browser for the length of the block; None where there is none."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as library:
        path = shutil.which("chromium") or shutil.which("google-chrome") or library.chromium.executable_path
        if not Path(path).exists():
            yield None
            return
        browser = library.chromium.launch(executable_path=path, args=["--no-sandbox"] if os.geteuid() == 0 else [])
        yield browser
        browser.close()
