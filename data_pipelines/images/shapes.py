"""Generated images with exact captions, and a checker that recognises their content from pixels.

"a small red circle", "a large green square above a small blue triangle": one or two items on white, never
overlapping. Some combinations of colour and shape (``HELD_OUT``) never occur in training images, so that prompts for
them tell composing from memorising.
"""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (220, 30, 30),
    "green": (30, 160, 50),
    "blue": (40, 70, 220),
    "yellow": (245, 210, 20),
    "purple": (150, 40, 170),
    "black": (20, 20, 20),
}
SHAPES = ("circle", "square", "triangle")
SIZES = {"small": 0.15, "large": 0.21}
"""Half the side of an item's bounding box, as a share of the image's side."""
RELATIONS = {"above": (0, -1), "below": (0, 1), "left of": (-1, 0), "right of": (1, 0)}
"""Direction of the first item as seen from the second: (x, y), y downwards."""
HELD_OUT = frozenset({("yellow", "triangle"), ("blue", "circle")})
"""Combinations of colour and shape that never occur in training images."""

SINGLES_TRAINED = 0.5
"""Share of training scenes with a single item: two items are learnt far more slowly, so they are shown more often."""
SINGLES_PROMPTED = 0.75
"""Share of evaluation prompts with a single item."""
SUPERSAMPLING = 4
"""Images are drawn at this multiple of their resolution and box-averaged."""
COLOUR_TOLERANCE = 90
"""Maximum Euclidean distance in RGB at which a pixel counts as of a palette colour."""
MIN_AREA = 0.02
"""Minimum area of a blob that counts as an item, as a share of the image."""


@dataclass(frozen=True, slots=True)
class Item:
    """One coloured shape."""

    size: str
    colour: str
    shape: str

    def __str__(self) -> str:
        return f"a {self.size} {self.colour} {self.shape}"


@dataclass(frozen=True, slots=True)
class Scene:
    """One item, or two and the direction of the first relative to the second."""

    items: tuple[Item, ...]
    relation: str = ""

    @property
    def caption(self) -> str:
        """Exact caption; ``parse_caption`` is its inverse."""
        return f" {self.relation} ".join(map(str, self.items))


def parse_caption(caption: str) -> Scene:
    """Parse the scene that a caption describes. Raises ValueError for any other text."""
    for relation in ("", *RELATIONS):
        parts = caption.split(f" {relation} ") if relation else [caption]
        words = [part.split(" ") for part in parts]
        if len(parts) == (2 if relation else 1) and all(len(w) == 4 and w[0] == "a" for w in words):
            items = tuple(Item(*w[1:]) for w in words)
            if all(i.size in SIZES and i.colour in COLOURS and i.shape in SHAPES for i in items):
                return Scene(items, relation)
    raise ValueError(f"not a caption of generated shapes: {caption!r}; write it as 'a small red circle above a ...'")


def training_scene(rng: np.random.Generator, share_of_singles: float = SINGLES_TRAINED) -> Scene:
    """Draw a random scene without held-out combinations."""
    combinations = [pair for pair in itertools.product(COLOURS, SHAPES) if pair not in HELD_OUT]
    return _scene(rng, combinations, share_of_singles)


def prompts(num: int, seed: int, *, held_out: bool) -> list[str]:
    """Draw evaluation prompts; ``held_out``: one item each, of a combination that never occurs in training."""
    rng = np.random.default_rng((seed, held_out))
    if not held_out:
        return [training_scene(rng, SINGLES_PROMPTED).caption for _ in range(num)]
    return [Scene((_item(rng, sorted(HELD_OUT)),)).caption for _ in range(num)]


def _scene(rng: np.random.Generator, combinations: list[tuple[str, str]], share_of_singles: float) -> Scene:
    if rng.random() < share_of_singles:
        return Scene((_item(rng, combinations),))
    first, second = _item(rng, combinations), _item(rng, combinations)
    while second.colour == first.colour:  # two of one colour could not be told apart where they touch
        second = _item(rng, combinations)
    return Scene((first, second), str(rng.choice(list(RELATIONS))))


def _item(rng: np.random.Generator, combinations: list[tuple[str, str]]) -> Item:
    colour, shape = combinations[rng.integers(len(combinations))]
    return Item(str(rng.choice(list(SIZES))), colour, shape)


def draw(scene: Scene, rng: np.random.Generator, resolution: int) -> np.ndarray:
    """Draw a scene: (resolution, resolution, 3) uint8; the place of an item in its part of the image is random."""
    side = resolution * SUPERSAMPLING
    image = Image.new("RGB", (side, side), (255, 255, 255))
    canvas = ImageDraw.Draw(image)
    towards = RELATIONS.get(scene.relation, (0, 0))
    for item, sign in zip(scene.items, (1, -1), strict=False):
        centre = [_position(rng, SIZES[item.size], sign * direction) * side for direction in towards]
        _draw_item(canvas, item, centre[0], centre[1], SIZES[item.size] * side)
    return np.asarray(image.resize((resolution, resolution), Image.Resampling.BOX))


def _position(rng: np.random.Generator, half: float, direction: int) -> float:
    """Draw a centre along one axis, as a share of the side: anywhere inside, or in the lower or upper half."""
    low, high = {0: (0.0, 1.0), -1: (0.0, 0.5), 1: (0.5, 1.0)}[direction]
    margin = half + 0.02
    return float(rng.uniform(low + margin, high - margin)) if high - low > 2 * margin else (low + high) / 2


def _draw_item(canvas: ImageDraw.ImageDraw, item: Item, x: float, y: float, half: float) -> None:
    box = (x - half, y - half, x + half, y + half)
    colour = COLOURS[item.colour]
    if item.shape == "circle":
        canvas.ellipse(box, fill=colour)
    elif item.shape == "square":
        canvas.rectangle(box, fill=colour)
    else:
        canvas.polygon([(x, box[1]), (box[2], box[3]), (box[0], box[3])], fill=colour)


def write_shapes(folder: Path, num: int, seed: int, resolution: int) -> None:
    """Write ``num`` training images in Hugging Face's image-folder layout; image i depends on (seed, i) alone.

    The column ``shape`` is that of the first item: a class.
    """
    (folder / "images").mkdir(parents=True)
    lines = []
    for i in range(num):
        rng = np.random.default_rng((seed, i))
        scene = training_scene(rng)
        name = f"images/{i:06d}.png"
        Image.fromarray(draw(scene, rng, resolution)).save(folder / name)
        lines.append(json.dumps({"file_name": name, "caption": scene.caption, "shape": scene.items[0].shape}))
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n")


# --- recognition -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Found:
    """An item recognised in an image."""

    colour: str
    shape: str
    x: float
    """Centre of the bounding box, in pixels from the left."""
    y: float
    """Centre of the bounding box, in pixels from the top."""


def find_items(pixels: np.ndarray) -> list[Found]:
    """Recognise the coloured shapes in an image (H, W, 3) uint8, largest first.

    An item is a blob of one palette colour; its shape is the outline with the largest intersection over union in the
    blob's bounding box.
    """
    from scipy import ndimage

    palette = np.array([(255, 255, 255), *COLOURS.values()], np.float32)
    distances = ((pixels[:, :, None].astype(np.float32) - palette) ** 2).sum(axis=-1)
    nearest = distances.argmin(axis=-1)
    nearest[distances.min(axis=-1) > COLOUR_TOLERANCE**2] = -1  # edges: half black on white is not grey purple
    found = []
    for index, colour in enumerate(COLOURS, start=1):
        blobs, _ = ndimage.label(nearest == index)
        for number, box in enumerate(ndimage.find_objects(blobs), start=1):
            blob = blobs[box] == number
            if blob.sum() >= MIN_AREA * nearest.size:
                rows, columns = box
                centre = ((columns.start + columns.stop) / 2, (rows.start + rows.stop) / 2)
                found.append((int(blob.sum()), Found(colour, _best_outline(blob), *centre)))
    return [item for _, item in sorted(found, key=lambda pair: -pair[0])]


def check_image(pixels: np.ndarray, caption: str) -> list[bool]:
    """Tell for each item of the caption whether the image shows one of its colour and shape.

    Each recognised item counts for one item of the caption; an image with more items than the caption has all wrong.
    """
    wanted = parse_caption(caption).items
    seen = find_items(pixels)
    if len(seen) > len(wanted):
        return [False] * len(wanted)
    left = [(item.colour, item.shape) for item in seen]
    right = []
    for item in wanted:
        right.append((item.colour, item.shape) in left)
        if right[-1]:
            left.remove((item.colour, item.shape))
    return right


def check_relation(pixels: np.ndarray, caption: str) -> bool:
    """Tell whether two items lie as the caption says; True for a caption of one item."""
    scene = parse_caption(caption)
    if not scene.relation:
        return True
    seen = {(item.colour, item.shape): item for item in find_items(pixels)}
    first, second = (seen.get((item.colour, item.shape)) for item in scene.items)
    if first is None or second is None:
        return False
    x, y = RELATIONS[scene.relation]
    return (first.x - second.x) * x + (first.y - second.y) * y > 0


def _best_outline(blob: np.ndarray) -> str:
    """Return the outline that, drawn into the blob's bounding box, overlaps the blob best."""
    rows, columns = ((np.arange(n) + 0.5) / n for n in blob.shape)
    y, x = rows[:, None], columns[None, :]
    outlines = {
        "circle": (x - 0.5) ** 2 + (y - 0.5) ** 2 <= 0.25,
        "square": np.ones(blob.shape, bool),
        "triangle": np.abs(x - 0.5) <= y / 2,
    }
    return max(outlines, key=lambda name: float((outlines[name] & blob).sum() / (outlines[name] | blob).sum()))
