"""Picture of restored images: docs/images/restoration.webp.

python -m tests.restoration_strips [HOME]

Trains each task for a minute or two on the demo's generated shapes, in the home folder HOME (default:
build/restoration), where what is done is a cache hit. Of each task it shows the worst, the median and the best held-out
image: input, baseline, restored, true.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from tests.pictures import environment
from tests.support.project import CHECKOUT
from tests.support.serving import BIN

TARGET = CHECKOUT / "docs" / "images" / "restoration.webp"
TASKS = {
    "denoising": "{name: denoising}",
    "super_resolution": "{name: super_resolution, factor: 2}",
    "inpainting": "{name: inpainting}",
    "colourisation": "{name: colourisation}",
}
COLUMNS = ("input", "baseline", "restored", "true")
SIDE, SCALE, HEADER, GAP = 64, 2, 40, 16


def main(home: Path) -> None:
    """Run the tasks in ``home`` and draw the picture."""
    home.mkdir(parents=True, exist_ok=True)
    strips = {name: run_task(home, name, task) for name, task in TASKS.items()}
    width, height = (max(strip.size[axis] for strip in strips.values()) for axis in (0, 1))
    picture = Image.new("RGB", (2 * width + 3 * GAP, 2 * (height + HEADER + GAP)), "white")
    for place, (name, strip) in enumerate(strips.items()):
        corner = GAP + place % 2 * (width + GAP), place // 2 * (height + HEADER + GAP)
        draw_panel(picture, corner, name.replace("_", " "), strip)
    picture.save(TARGET, "WEBP", lossless=True, method=6)
    print(f"{TARGET}: {TARGET.stat().st_size} bytes")


def run_task(home: Path, name: str, task: str) -> Image.Image:
    """Train and evaluate one task; return the strips of its report, enlarged."""
    config = CHECKOUT / "flows" / "configs" / "demo_restoration.yaml"
    settings = (f"task={task}", f"registry.name={name}", "registry.min_metrics={}", "evaluate.num_shown=0")
    words = [str(BIN / "unetflow"), "evaluate", str(config), "--json"]
    words += [word for setting in settings for word in ("--set", setting)]
    done = subprocess.run(words, env=environment(home), stdout=subprocess.PIPE, text=True, check=True)
    report = Path(json.loads(done.stdout.splitlines()[-1])["report"])
    with Image.open(report.with_name("overlay.png")) as strips:
        return strips.convert("RGB").resize((SCALE * strips.width, SCALE * strips.height), Image.Resampling.NEAREST)


def draw_panel(picture: Image.Image, corner: tuple[int, int], title: str, strips: Image.Image) -> None:
    """Draw the strips of one task below its name and the names of the columns."""
    draw, (left, top) = ImageDraw.Draw(picture), corner
    draw.text((left, top + 4), title, "black", ImageFont.load_default(15))
    for place, column in enumerate(COLUMNS):
        # The input of super-resolution is smaller than the other images, which have the demo's size.
        before = max(0, strips.width - (len(COLUMNS) - place) * SCALE * SIDE)
        draw.text((left + before, top + 22), column, "#555555", ImageFont.load_default(12))
    picture.paste(strips, (left, top + HEADER))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else CHECKOUT / "build" / "restoration")
