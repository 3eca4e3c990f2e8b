"""What people see in a browser after a run: Prefect's and MLflow's own pages, in headless Chromium.

The screenshots are kept in ``build/pages``.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.project import CHECKOUT
from tests.stack.client import Client

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

PICTURES = CHECKOUT / "build" / "pages"
TIMEOUT_MILLISECONDS = 60_000


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium: the system's, else the one that ``playwright install chromium`` has fetched."""
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as library:
        path = shutil.which("chromium") or shutil.which("google-chrome") or library.chromium.executable_path
        if not Path(path).exists():
            pytest.skip("no Chromium: apt-get install chromium, or playwright install --with-deps chromium")
        started = library.chromium.launch(executable_path=path, args=["--no-sandbox"] if os.geteuid() == 0 else [])
        yield started
        started.close()
