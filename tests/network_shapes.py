"""Picture of the shapes of the segmentation family, drawn from their presets: docs/images/networks.webp.

python -m tests.network_shapes

One panel per network: a column of boxes for the encoder, one for the decoder (of U-Net++ one per column of nodes),
full resolution at the top. Boxes are as wide as the logarithm of their channels, which stand below them with the number
of blocks; lines are skip connections.
"""

from __future__ import annotations

import math

from PIL import Image, ImageDraw, ImageFont

from tests.support.project import CHECKOUT
from unet_models.specs.networks import UNetSpec

TARGET = CHECKOUT / "docs" / "images" / "networks.webp"
PANEL, COLUMNS, HEADER = (300, 250), 4, 34
SHOWN = {
    "fcn_8s": "FCN-8s",
    "unet_2015": "U-Net 2015 (valid)",
    "unet": "U-Net",
    "resunet": "ResUNet",
    "attention_unet": "Attention U-Net",
    "unet_plus_plus": "U-Net++",
    "nnunet": "nnU-Net",
    "residual_encoder": "residual encoder",
    "mednext_l": "MedNeXt-L",
    "mobile_unet": "Mobile U-Net",
    "shuffle_unet": "Shuffle U-Net",
    "separable_unet": "separable U-Net",
}
BOX = {
    "plain": "#5b8db8",
    "residual": "#d9883a",
    "residual_encoder": "#c25f3c",
    "mednext": "#7d6bb0",
    "inverted_residual": "#4f9d69",
    "shuffle": "#a8873b",
    "separable": "#5aa7a7",
}
"""Colour of each block."""
SKIP = {"concat": "#444444", "add": "#2a8f4f", "gated": "#c0392b", "gated_coarse": "#c0392b"}
"""Colour of each kind of skip connection."""
SCALE = 2
"""Pixels per unit: drawn large, then reduced."""


class Panel:
    """One network's panel."""

    def __init__(self, draw: ImageDraw.ImageDraw, spec: UNetSpec, corner: tuple[int, int]) -> None:
        self.draw, self.spec, self.corner = draw, spec, corner
        self.depth = len(spec.channels)
        self.columns = self.depth if spec.decoder == "nested" else 2

    def paint(self, title: str) -> None:
        """Draw title, connections and boxes."""
        self._text((self.corner[0] + PANEL[0] / 2, self.corner[1] + 16), title, 15)
        coarsest = self.depth - 1
        for level in range(coarsest):
            last = self.columns - 1 if self.spec.decoder != "nested" else coarsest - level
            kind = self.spec.skips[level]
            if kind != "none":
                self._line((0, level), (last, level), SKIP[kind], dot=kind.startswith("gated"))
        if self.spec.decoder == "nested":
            for column in range(1, self.depth):
                for level in range(self.depth - column):
                    self._line((column - 1, level + 1), (column, level), "#bbbbbb")
        else:
            self._line((0, coarsest), (1, coarsest - 1), "#bbbbbb")
        for column in range(self.columns):
            for level in range(self.depth if column == 0 else coarsest):
                if self.spec.decoder != "nested" or level < self.depth - column:
                    self._box(column, level)

    def _box(self, column: int, level: int) -> None:
        is_score = column > 0 and self.spec.decoder == "fcn"
        if is_score and level and self.spec.skips[level] == "none":
            return
        block = self.spec.block if column == 0 else self.spec.decoder_block or self.spec.block
        channels = self.spec.channels[level]
        width = 8 if is_score else (9 * math.log2(channels) - 16) * (0.6 if self.columns > 2 else 1)
        number = "scores" if is_score else str(channels)
        repeats = 1 if is_score else (self.spec.encoder_blocks if column == 0 else self.spec.decoder_blocks)[level]
        x, y = self._place(column, level)
        colour = "#999999" if is_score else BOX[block]
        self.draw.rectangle([SCALE * v for v in (x - width / 2, y - 8, x + width / 2, y + 8)], fill=colour)
        shown = number if repeats == 1 or self.columns > 2 else f"{number} x{repeats}"
        self._text((x, y + 16), shown, 10)

    def _line(self, start: tuple[int, int], end: tuple[int, int], colour: str, *, dot: bool = False) -> None:
        (x0, y0), (x1, y1) = self._place(*start), self._place(*end)
        self.draw.line([SCALE * v for v in (x0, y0, x1, y1)], fill=colour, width=2 * SCALE)
        if dot:
            x = (x0 + x1) / 2
            self.draw.ellipse([SCALE * v for v in (x - 6, y0 - 6, x + 6, y0 + 6)], fill=colour)

    def _place(self, column: int, level: int) -> tuple[float, float]:
        step = (PANEL[0] - 100) / (self.columns - 1)
        down = (PANEL[1] - HEADER - 30) / (self.depth - 1)
        return self.corner[0] + 50 + column * step, self.corner[1] + HEADER + 8 + level * down

    def _text(self, middle: tuple[float, float], text: str, size: int) -> None:
        font = ImageFont.load_default(size * SCALE)
        self.draw.text([SCALE * v for v in middle], text, fill="#222222", font=font, anchor="mm")


def main() -> None:
    """Draw all panels and write the picture."""
    rows = -(-len(SHOWN) // COLUMNS)
    size = PANEL[0] * COLUMNS, PANEL[1] * rows
    picture = Image.new("RGB", [SCALE * n for n in size], "white")
    draw = ImageDraw.Draw(picture)
    for number, (name, title) in enumerate(SHOWN.items()):
        row, column = divmod(number, COLUMNS)
        Panel(draw, UNetSpec(preset=name), (column * PANEL[0], row * PANEL[1])).paint(title)
    picture.resize(size, Image.Resampling.LANCZOS).save(TARGET, quality=80, method=6)


if __name__ == "__main__":
    main()
