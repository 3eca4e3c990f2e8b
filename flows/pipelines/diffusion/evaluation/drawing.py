"""The actor of an evaluation: draws images, reconstructs real ones, and takes the features of either."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from data_pipelines import storage
from data_pipelines.shards.index import read_table
from data_pipelines.shards.writer import write_shard
from data_pipelines.temporary import temporary_folder
from flows.pipelines.diffusion.evaluation.neighbours import find_among, read_queries
from flows.pipelines.diffusion.evaluation.parts import (
    PART_IMAGES,
    DrawingJob,
    MapRow,
    Part,
    Result,
    encode_bytes,
    encode_features,
    encode_neighbours,
    encode_pngs,
)
from flows.pipelines.diffusion.model import assemble
from flows.report.pictures import png_bytes

if TYPE_CHECKING:
    from unet_models.networks.denoiser import Denoiser

MAP_SIDE = 96
"""Pixels of the longer side of an attention map in the report."""
NUM_TRACE_IMAGES = 8
"""Images of a denoising strip."""


class Drawer:
    """An actor that loads the networks with its first part."""

    job: DrawingJob | None = None
    queries: Mapping[str, np.ndarray] = {}  # replaced as a whole, by the first search

    def __call__(self, item: dict[str, Any]) -> dict[str, Any]:
        """Work on the ``Part`` (JSON) in ``part`` of the job at ``job``; the result holds the JSON of a ``Result``."""
        if self.job is None:
            self._load(item["job"])
        part = Part.model_validate_json(item["part"])
        work = {"draw": self._draw, "prior": self._prior, "real": self._real, "trace": self._trace}
        result = (work | {"search": self._search, "explain": self._explain})[part.kind](part)
        return {"number": item["number"], "num_images": part.num_images, "result": result.model_dump_json()}

    def _load(self, job_uri: str) -> None:
        import torch

        from data_pipelines.loading.loader import ImageSamples
        from data_pipelines.shards.reader import ShardReader
        from flows.pipelines.diffusion.text_to_image import TextToImage
        from unet_models.formats.clip_folder import Clip
        from unet_models.metrics.inception import load_inception

        job = DrawingJob.model_validate_json(storage.read_bytes(job_uri))
        torch.set_num_threads(job.threads)
        device = "cuda" if job.use_gpu else "cpu"
        with _model_folder(job) as folder:
            self.model = TextToImage(folder, device)
        with storage.local_folder(job.ingredients.clip_uri) as clip_folder:
            self.clip = Clip(clip_folder, device)
        self.trained = self.model.denoiser
        self.inception = load_inception(job.inception_weights).to(device) if job.inception_weights else None
        index = read_table(job.index_uri)
        self.captions = index["caption"]
        reader = ShardReader(index, job.images_uri)
        self.images, self.whole = ImageSamples(reader, job.resolution), ImageSamples(reader)
        self.job = job

    def _draw(self, part: Part) -> Result:
        self.model.denoiser = self._untrained() if part.untrained else self.trained
        given = self._given(part)
        images = self.model.draw(part.requests, images=given)
        prompts = [request.prompt for request in part.requests]
        if part.shard:
            self._keep(part, images)
        features = self._features(self._squares(images)) if part.measures else {}
        right, related = _check(images, prompts) if part.checks else ([], [])
        return Result(
            features=encode_features(features),
            alignment=self._alignment(features, prompts) if self.model.takes_text else [],
            right=right,
            related=related,
            pngs=encode_pngs(images) if part.shows else [],
            given=encode_pngs(given[:1])[0] if given and part.shows else "",
        )

    def _prior(self, part: Part) -> Result:
        images = self.model.draw_prior([request.seed for request in part.requests])
        return Result(features=encode_features(self._features(images)))

    def _real(self, part: Part) -> Result:
        from unet_models.sampling.pixels import scale_images

        images = self.images.pixels(part.rows)
        pixels = images.permute(0, 2, 3, 1).numpy()
        features = self._features(pixels)
        if not part.restores:
            return Result(features=encode_features(features))
        restored = self.model.reconstruct(scale_images(images))
        error = (restored.astype(np.float64) - pixels) / 127.5
        return Result(
            features=encode_features(features),
            alignment=self._alignment(features, [self.captions[row].as_py() for row in part.rows]),
            restored=encode_features(self._features(restored)),
            squared_error=float(np.square(error).mean()),
        )

    def _search(self, part: Part) -> Result:
        assert self.job is not None
        self.queries = self.queries or read_queries(self.job.queries_uri)
        features = [self._features(self._pixels(rows)) for rows in self._batches(part.rows)]
        references = {name: np.concatenate([each[name] for each in features]) for name in features[0]}
        return Result(nearest=encode_neighbours(find_among(self.queries, references, part.rows)))

    def _batches(self, rows: Sequence[int]) -> list[Sequence[int]]:
        """Cut rows into what is decoded at a time."""
        return [rows[i : i + PART_IMAGES] for i in range(0, len(rows), PART_IMAGES)]

    def _pixels(self, rows: Sequence[int]) -> np.ndarray:
        """Read real images, (N, side, side, 3) uint8."""
        pixels: np.ndarray = self.images.pixels(rows).permute(0, 2, 3, 1).numpy()
        return pixels

    def _trace(self, part: Part) -> Result:
        self.model.denoiser = self.trained
        (request,) = part.requests
        given = self._given(part)
        return Result(pngs=encode_pngs(self.model.trace(request, NUM_TRACE_IMAGES, given[0] if given else None)))

    def _given(self, part: Part) -> list[np.ndarray] | None:
        """Return the images that the requests draw from, with a hole where the model fills one; None: from none."""
        if not part.given:
            return None
        images = [self.whole.pixels([row])[0].permute(1, 2, 0).numpy() for row in part.given]
        if self.model.bundle.image_condition.kind != "masked":
            return images
        return [with_hole(image, request.seed) for image, request in zip(images, part.requests, strict=True)]

    def _explain(self, part: Part) -> Result:
        from flows.pipelines.diffusion.explain import explain_prompt, rows_of_maps

        self.model.denoiser = self.trained
        (request,), given = part.requests, self._given(part)
        found = explain_prompt(self.model, request, given[0] if given else None)
        rows = []
        for name, maps in rows_of_maps(found).items():
            pngs = [found.draw(of_token, of_token.max(), MAP_SIDE) for of_token in maps]
            rows.append(MapRow(name=name, tokens=found.tokens, pngs=tuple(map(encode_bytes, pngs))))
        return Result(pngs=encode_pngs([found.image]), maps=tuple(rows))

    def _squares(self, images: list[np.ndarray]) -> np.ndarray:
        """Cut the middle square of each image, as of the real ones: (N, side, side, 3)."""
        from data_pipelines.loading.loader import middle_square

        assert self.job is not None
        return np.stack([middle_square(image, self.job.resolution) for image in images])

    def _features(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Compute the features: extractor to (N, D) float32."""
        import torch

        from unet_models.metrics.inception import inception_features

        parts: dict[str, list[np.ndarray]] = {}
        for batch in self.model.batches(torch.from_numpy(images).permute(0, 3, 1, 2)):
            if self.clip.has_images:
                parts.setdefault("clip", []).append(self.clip.image_vectors(batch).cpu().numpy())
            if self.inception is not None:
                parts.setdefault("inception", []).append(inception_features(self.inception, batch).cpu().numpy())
        return {name: np.concatenate(found) for name, found in parts.items()}

    def _alignment(self, features: dict[str, np.ndarray], prompts: list[str]) -> list[float]:
        """Compute the cosine of each image with its prompt; none without an image tower."""
        if "clip" not in features:
            return []
        cosines: list[float] = (features["clip"] * self.clip.text_vectors(prompts).cpu().numpy()).sum(axis=1).tolist()
        return cosines

    def _untrained(self) -> Denoiser:
        import torch

        from unet_models.networks.build import build_denoiser

        torch.manual_seed(0)
        return build_denoiser(self.trained.spec).to(self.model.device).eval()

    def _keep(self, part: Part, images: list[np.ndarray]) -> None:
        assert self.job is not None
        rows = (
            (
                {"key": f"{part.name}-{part.shard}-{i:05d}", **request.model_dump(exclude_none=True)},
                {"png": png_bytes(image)},
            )
            for i, (request, image) in enumerate(zip(part.requests, images, strict=True))
        )
        attempt = self.job.samples_uri.split("/")[-2]  # readers keep remote shards by name, so names must be unique
        write_shard(storage.join(self.job.samples_uri, f"{attempt}-{part.name}-{part.shard}.tar"), rows)


@contextmanager
def _model_folder(job: DrawingJob) -> Iterator[Path]:
    """Yield the folder of the model to draw with."""
    if job.model_uri:
        with storage.local_folder(job.model_uri) as folder:
            yield folder
        return
    with temporary_folder("pipeline") as folder:
        assemble(job.ingredients, folder)
        yield folder


def with_hole(image: np.ndarray, seed: int) -> np.ndarray:
    """Add an alpha channel to an image (H, W, 3) uint8, transparent in a random box: (H, W, 4)."""
    import torch

    from unet_models.sampling.conditions import boxes

    uniform = torch.rand(1, 4, generator=torch.Generator().manual_seed(seed))
    hole = boxes(uniform, *image.shape[:2])[0, 0].numpy()
    return np.concatenate([image, np.uint8(255) * (1 - hole).astype(np.uint8)[..., None]], axis=-1)


def _check(images: list[np.ndarray], prompts: list[str]) -> tuple[list[list[bool]], list[bool]]:
    from data_pipelines.images.shapes import check_image, check_relation

    pairs = list(zip(images, prompts, strict=True))
    return [check_image(*pair) for pair in pairs], [check_relation(*pair) for pair in pairs]
