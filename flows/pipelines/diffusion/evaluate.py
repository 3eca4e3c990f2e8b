"""Stage ``evaluate``: checkpoint to generated images, compared with real ones, and a report that stands alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from data_pipelines import storage
from data_pipelines.digests import digest_of, file_digests
from data_pipelines.progress import track
from data_pipelines.shards.index import read_table
from flows.cluster.actors import map_on_actors
from flows.pipelines.diffusion.config import DiffusionConfig
from flows.pipelines.diffusion.evaluation.asking import Samples, captions_can_be_checked
from flows.pipelines.diffusion.evaluation.drawing import Drawer
from flows.pipelines.diffusion.evaluation.measures import FeatureSets, gather_features, measure
from flows.pipelines.diffusion.evaluation.neighbours import (
    Neighbours,
    find_among,
    merge_all,
    select_queries,
    write_queries,
)
from flows.pipelines.diffusion.evaluation.parts import DrawingJob, Part, Result, decode_neighbours
from flows.pipelines.diffusion.evaluation.plan import plan_parts, plan_search
from flows.pipelines.diffusion.evaluation.units import collect_units, write_units
from flows.pipelines.diffusion.model import Trained, gather
from flows.stages.attempt import Attempt
from flows.stages.record import EvaluationFigures
from flows.stages.shards import shards_uri
from flows.stages.stage import Stage

FORMAT = 2
"""Version of the images and metrics; raise it when they change for the same networks and settings."""


class GenerationScores(EvaluationFigures):
    """Figures of an evaluation; metrics name their extractor and N."""

    num_images: int
    """Generated images of the main set."""


def evaluate_stage(config: DiffusionConfig, trained: Trained) -> Stage[GenerationScores]:
    """Plan the stage: its key holds the identity of the networks, the images and the settings."""
    identity = config.evaluate.model_dump(mode="json") | {"format": FORMAT, "checked": captions_can_be_checked(config)}
    if weights := config.evaluate.inception_weights:
        identity["inception_weights"] = file_digests([Path(weights)])[Path(weights)]

    def compute(attempt: Attempt) -> GenerationScores:
        return _evaluate(config, trained, attempt)

    return Stage("evaluate", identity, trained.records, compute, GenerationScores, uses_gpu=True)


def _evaluate(config: DiffusionConfig, trained: Trained, attempt: Attempt) -> GenerationScores:
    from flows.pipelines.diffusion.evaluation.report import write_report

    samples = read_samples(trained)
    plan = plan_parts(config, samples)
    results = draw_parts(config, trained, attempt, plan.parts)
    features = gather_features(plan.parts, results)
    neighbours = _search(config, trained, attempt, samples, features)
    measured = measure(plan.parts, results, features, neighbours)
    write_units(attempt, collect_units(plan.parts, results))
    attempt.write("metrics", "metrics.json", json.dumps(measured.metrics, indent=1).encode())
    write_report(attempt, config, trained, list(zip(plan.parts, results, strict=True)), measured)
    return GenerationScores(metrics=measured.metrics, num_images=len(plan.prompts))


def read_samples(trained: Trained) -> Samples:
    """Read the columns of the data's index that a plan depends on."""
    index = read_table(trained.shards.output("index"))
    captions, splits, buckets = (index[name].to_pylist() for name in ("caption", "split", "bucket"))
    return Samples(captions, splits, buckets, index["class_name"].to_pylist())


def _search(
    config: DiffusionConfig, trained: Trained, attempt: Attempt, samples: Samples, features: FeatureSets
) -> Neighbours:
    """Find the nearest of all training images to the generated and the held-out ones."""
    queries = select_queries(features)
    found = [find_among(queries, features["train"], samples.rows("train"))]
    parts = plan_search(samples)
    if parts and queries:
        results = draw_parts(config, trained, attempt, parts, queries_uri=write_queries(attempt, queries))
        found += [decode_neighbours(result.nearest) for result in results]
    return merge_all(found)


def draw_parts(
    config: DiffusionConfig,
    trained: Trained,
    attempt: Attempt,
    parts: Sequence[Part],
    model_uri: str = "",
    queries_uri: str = "",
) -> list[Result]:
    """Work on the parts on the actors.

    ``model_uri`` is a folder to draw with instead of the trained networks, ``queries_uri`` what a search is for.
    """
    shards = trained.shards
    job = DrawingJob(
        model_uri=model_uri,
        queries_uri=queries_uri,
        ingredients=gather(config, trained),
        index_uri=shards.output("index"),
        images_uri=shards_uri(shards),
        resolution=config.data.resolution,
        samples_uri=attempt.uri("samples"),
        inception_weights=config.evaluate.inception_weights,
        threads=config.compute.threads_per_worker,
        use_gpu=config.compute.use_gpu,
    )
    storage.write_bytes(attempt.uri("job.json"), job.model_dump_json(indent=1).encode())
    return _run(attempt.uri("job.json"), parts, config)


def evaluation_digest(config: DiffusionConfig, trained: Trained) -> str:
    """Compute the digest of what metrics depend on: distances are to the training images, in the space of that very
    CLIP, and depend on N, the seed, and what is asked for, which the conditions decide."""
    weights, spec = config.evaluate.inception_weights, config.evaluate
    file_digest = storage.digest(weights) if weights else ""
    data = [trained.shards.digest, trained.clip.digest, spec.num_images, spec.seed, file_digest]
    return digest_of([FORMAT, *data, conditions_of(config)])


def conditions_of(config: DiffusionConfig) -> list[str]:
    """Name the conditions of the network that is trained."""
    train = config.train
    return condition_names(
        takes_text=train.model.context_dim is not None,
        takes_classes=train.model.num_class_embeds is not None,
        image=train.image_condition.kind,
    )


def condition_names(*, takes_text: bool, takes_classes: bool, image: str) -> list[str]:
    """Name the conditions of a network."""
    found = {"text": takes_text, "class": takes_classes, f"{image} image": image != "none"}
    return [name for name, is_taken in found.items() if is_taken]


def _run(job_uri: str, parts: Sequence[Part], config: DiffusionConfig) -> list[Result]:
    """Work on all parts; return their results in the order of the parts."""
    items = [{"number": i, "part": part.model_dump_json(), "job": job_uri} for i, part in enumerate(parts)]
    found = {}
    finished = ((row["num_images"], row) for row in map_on_actors(Drawer, items, config.compute))
    for row in track(finished, "evaluate", "images", sum(part.num_images for part in parts)):
        found[row["number"]] = Result.model_validate_json(row["result"])
    return [found[i] for i in range(len(parts))]
