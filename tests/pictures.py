"""Pictures of the README, from runs of both demos: the flow in Prefect, a segmentation report, generated images.

python -m tests.pictures [HOME]

Runs the demos in the home folder HOME (default: build/pictures), where those that are done are cache hits, and
photographs them with Chromium. ``make pictures`` is the same; it takes as long as ``make demo``.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
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
SEGMENTATION_PIECES = (("Scores per class", 470), ("Cases in pictures", 720))
SAMPLES_PIECES = (("Samples by prompt", 695),)


def main(home: Path) -> None:
    """Run the demos in ``home`` and write the three pictures."""
    home.mkdir(parents=True, exist_ok=True)
    with open_browser() as browser:
        if browser is None:
            sys.exit(MISSING)
        segmentation, diffusion = run_demos(home)
        save("segmentation-report", report_pieces(browser, segmentation["report"], SEGMENTATION_PIECES))
        save("samples", report_pieces(browser, diffusion["report"], SAMPLES_PIECES))
        with prefect_server(home) as url:
            save("flow", flow_page(browser, url, diffusion["pipeline"]))


def run_demos(home: Path) -> list[dict[str, Any]]:
    """Run both demos in the home folder; return their records."""
    words = [str(BIN / "unetflow"), "demo", "segmentation", "diffusion", "--json"]
    done = subprocess.run(words, env=environment(home), stdout=subprocess.PIPE, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def environment(home: Path) -> dict[str, str]:
    """Return the environment of somebody at home there, without servers."""
    outside = ("PREFECT_", "MLFLOW_", "RAY_", "UNETFLOW_", "XDG_")
    return {name: value for name, value in os.environ.items() if not name.startswith(outside)} | {"HOME": str(home)}


@contextmanager
def prefect_server(home: Path) -> Iterator[str]:
    """Run a Prefect server on loopback, on the database that flows in this home folder left; yield its address."""
    port = free_port()
    words = [str(BIN / "prefect"), "server", "start", "--host", "127.0.0.1", "--port", str(port), "--no-services"]
    folder = home / ".local" / "state" / "unetflow" / "prefect"
    url = f"http://127.0.0.1:{port}"
    variables = environment(home) | {"PREFECT_HOME": str(folder), "DO_NOT_TRACK": "1"}
    variables["PREFECT_SERVER_UI_API_URL"] = f"{url}/api"  # else its pages ask port 4200
    log = home / "prefect.log"
    with log.open("w") as stream:
        server = subprocess.Popen(words, env=variables, stdout=stream, stderr=stream)
    try:
        wait_for(lambda: answers(f"{url}/api/health"), log.read_text, 180, alive=server)
        yield url
    finally:
        server.terminate()
        server.wait()


def flow_page(browser: Browser, prefect: str, flow: str) -> bytes:
    """Photograph the page of the flow's longest run."""
    request = urllib.request.Request(
        f"{prefect}/api/flow_runs/filter",
        data=json.dumps({"flows": {"name": {"any_": [flow]}}}).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request) as answer:
        run = max(json.load(answer), key=lambda run: run["total_run_time"])
    page = browser.new_page(viewport={"width": WIDTH, "height": 640})
    page.goto(f"{prefect}/v2/runs/flow-run/{run['id']}")
    page.get_by_text(run["name"]).first.wait_for(timeout=60_000)
    page.wait_for_timeout(5_000)  # the graph is drawn on a canvas, which tells nobody when it is done
    return page.screenshot(clip={"x": 256, "y": 0, "width": WIDTH - 256, "height": 512})  # without the menu


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
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else CHECKOUT / "build" / "pictures")
