"""Pictures of the README, from runs of both demos: the flow in Prefect, a segmentation report, generated images.

Run with ``make pictures``; needs Chromium, and as long as ``make demo``.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from tests.support.browser import MISSING, open_browser
from tests.support.project import CHECKOUT
from tests.support.serving import BIN, answers, free_port, wait_for

if TYPE_CHECKING:
    from playwright.sync_api import Browser

TARGET = CHECKOUT / "docs" / "images"
MAX_BYTES = 300_000
WIDTH = 1200
SEGMENTATION_PIECES = (("Scores per class", 470), ("Cases in pictures", 780))
SAMPLES_PIECES = (("Samples by prompt", 480), ("From noise to image", 280))


def main() -> None:
    """Run the demos beside a Prefect server and write the three pictures."""
    with open_browser() as browser, tempfile.TemporaryDirectory(prefix="ufp-") as folder:
        if browser is None:
            sys.exit(MISSING)
        home = Path(folder)
        variables = {"HOME": folder, "UNETFLOW_STORAGE": str(home / "storage"), "UNETFLOW_CACHE": str(home / "cache")}
        with prefect_server(home, variables) as url:
            segmentation = run_demo("segmentation", variables, url)
            diffusion = run_demo("diffusion", variables, url)
            save("flow", flow_page(browser, url, diffusion))
        save("segmentation-report", report_pieces(browser, segmentation["report"], SEGMENTATION_PIECES))
        save("samples", report_pieces(browser, diffusion["report"], SAMPLES_PIECES))


@contextmanager
def prefect_server(home: Path, variables: dict[str, str]) -> Iterator[str]:
    """Run a Prefect server on loopback; yield its address."""
    port = free_port()
    words = [str(BIN / "prefect"), "server", "start", "--host", "127.0.0.1", "--port", str(port), "--no-services"]
    environment = os.environ | variables | {"PREFECT_HOME": str(home / "prefect"), "DO_NOT_TRACK": "1"}
    with (home / "prefect.log").open("w") as log:
        server = subprocess.Popen(words, env=environment, stdout=log, stderr=log)
    try:
        url = f"http://127.0.0.1:{port}"
        wait_for(lambda: answers(f"{url}/api/health"), (home / "prefect.log").read_text, 180, alive=server)
        yield url
    finally:
        server.terminate()
        server.wait()


def run_demo(name: str, variables: dict[str, str], prefect: str) -> dict[str, Any]:
    """Run a demo as a flow; return its record."""
    environment = os.environ | variables | {"PREFECT_API_URL": f"{prefect}/api"}
    words = [str(BIN / "unetflow"), "demo", name, "--json"]
    done = subprocess.run(words, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    record: dict[str, Any] = json.loads(done.stdout)
    return record


def flow_page(browser: Browser, prefect: str, summary: dict[str, Any]) -> bytes:
    """Photograph the page of the pipeline's flow run."""
    request = urllib.request.Request(
        f"{prefect}/api/flow_runs/filter",
        data=json.dumps({"flows": {"name": {"any_": [summary["pipeline"]]}}}).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request) as answer:
        (run,) = json.load(answer)
    page = browser.new_page(viewport={"width": WIDTH, "height": 640})
    page.goto(f"{prefect}/v2/runs/flow-run/{run['id']}")
    page.get_by_text("register-", exact=False).first.wait_for(timeout=60_000)
    page.wait_for_timeout(3_000)  # the graph is drawn on a canvas, which tells nobody when it is done
    return page.screenshot()


def report_pieces(browser: Browser, report: str, pieces: Sequence[tuple[str, int]]) -> bytes:
    """Photograph sections of a report: (title, height in pixels to show, from the section's top) of each."""
    page = browser.new_page(viewport={"width": WIDTH, "height": 1000})
    page.goto(Path(report).as_uri())
    whole = Image.open(io.BytesIO(page.screenshot(full_page=True)))
    picture = Image.new("RGB", (WIDTH, sum(height for _, height in pieces)))
    below = 0
    for title, height in pieces:
        top = page.locator("section", has=page.locator("h2", has_text=title)).first.evaluate("s => s.offsetTop")
        picture.paste(whole.crop((0, top, WIDTH, top + height)), (0, below))
        below += height
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def save(name: str, png: bytes) -> None:
    """Write a picture as WebP; raise ValueError where it is too large for a README."""
    TARGET.mkdir(parents=True, exist_ok=True)
    path = TARGET / f"{name}.webp"
    Image.open(io.BytesIO(png)).convert("RGB").save(path, quality=85, method=6)
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"{path.name} has {path.stat().st_size} bytes, more than {MAX_BYTES}")
    sys.stderr.write(f"{path.relative_to(CHECKOUT)}: {path.stat().st_size // 1000} kB\n")


if __name__ == "__main__":
    main()
