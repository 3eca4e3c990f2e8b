"""Cascades: the label map of a previous network as a further channel, in shards and in prediction."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from data_pipelines.volumes.preprocess import prepare_labels
from data_pipelines.volumes.specs import PreprocessSpec
from flows.pipelines.segmentation import cascade
from flows.pipelines.segmentation.averaging import join_weights
from flows.pipelines.segmentation.bundle import Bundle
from flows.pipelines.segmentation.cascade import Work, explain_lacking, shard_one
from flows.pipelines.segmentation.explain import SegmentationExplainer
from flows.pipelines.segmentation.reading import read_files
from flows.pipelines.segmentation.segmenter import Segmenter
from flows.registry.bundle import WEIGHTS, write_bundle
from tests.support.volumes import numbered
from unet_models.networks.build import build_network
from unet_models.specs.networks import UNetSpec
from unet_models.specs.segmentation import PredictSpec

LABELS = numbered("background", "left", "right")
SPEC = UNetSpec(channels=(4, 8), skip="gated")


def weights_of(seed: int, num_previous: int = 0) -> dict[str, Tensor]:
    """Random weights, whose logits are scaled up: untrained ones are near 0."""
    torch.manual_seed(seed)
    state = build_network(SPEC, 1, LABELS.num_outputs, 3, num_previous=num_previous).state_dict()
    return {name: 4 * value if "head" in name else value for name, value in state.items()}


def bundle_of(spacing: float, num_previous: int = 0, previous: Bundle | None = None) -> Bundle:
    return Bundle(
        model=SPEC,
        labels=LABELS,
        channels=("image",),
        patch_size=(16, 16, 16),
        preprocess=PreprocessSpec(),
        spacing=(spacing,) * 3,
        mirror_axes=(),
        predict=PredictSpec(),
        num_previous=num_previous,
        previous=previous,
    )


def saved(folder: Path, bundle: Bundle, weights: dict[str, Tensor]) -> Segmenter:
    folder.mkdir()
    write_bundle(folder, bundle)
    save_file(weights, folder / WEIGHTS)
    return Segmenter.from_folder(folder, device="cpu")


@pytest.fixture
def image(tmp_path: Path) -> str:
    import nibabel as nib

    values = np.random.default_rng(0).uniform(20, 90, (15, 12, 10)).astype(np.float32)
    nib.save(nib.Nifti1Image(values, np.diag([-1.0, 1.2, 1.6, 1.0])), tmp_path / "image.nii.gz")
    return str(tmp_path / "image.nii.gz")


def test_the_network_is_given_what_the_previous_one_segmented(tmp_path: Path, image: str) -> None:
    low = saved(tmp_path / "low", bundle_of(2.5), weights_of(0))
    alone = saved(tmp_path / "alone", bundle_of(1.0, num_previous=2), weights_of(1, num_previous=2))
    joined = join_weights(load_file(tmp_path / "alone" / WEIGHTS), previous=load_file(tmp_path / "low" / WEIGHTS))
    whole = saved(tmp_path / "whole", bundle_of(1.0, num_previous=2, previous=low.bundle), joined)
    first = low.segment_files([image])[0]
    assert len(np.unique(first)) == 3
    sample = read_files(alone.bundle, [image]).prepared
    channel = prepare_labels(first, sample.done)[None].astype(np.float32)
    want = alone.segment_prepared(np.concatenate([sample.image, channel]), sample.done)
    found = whole.segment_files([image])[0]
    np.testing.assert_array_equal(found, want)
    blank = alone.segment_prepared(np.concatenate([sample.image, 0 * channel]), sample.done)
    assert (found != blank).any(), "the label map changes nothing"
    assert list(whole.models) == ["unet", "previous"]
    limited = whole.within(2)
    assert limited.previous is not None
    assert limited.previous.bundle.predict.memory_gb == 2
    written = SegmentationExplainer(tmp_path / "whole", "left")({"path": image}, tmp_path / "maps")
    assert {path.stem for path in written} >= {"gates-mean", "saliency-left-stage1"}


def test_it_is_said_why_a_case_has_no_label_map() -> None:
    never = explain_lacking("low", ["a", "b"], {"a", "c"})
    assert never.startswith("no fold holds out a: all networks of low are trained on them")
    assert "name each case in val of one fold of the splits file" in never
    left_out = explain_lacking("low", ["a", "b", "c", "d"], {"e"})
    assert left_out.startswith("low has left out a, b, c, ...: all candidates must use the same cases")


def test_a_lost_label_map_is_named_with_its_case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cascade, "read_rows", lambda uri: [{"case_id": "pat 1.2"}])
    monkeypatch.setattr(cascade.ShardReader, "from_uri", lambda *uris: None)
    monkeypatch.setattr(cascade, "read_stored_geometry", lambda reader, row: None)
    uris = {name: str(tmp_path / name) for name in ("uri", "index_uri", "shards_uri")}
    work = Work(rows=(0,), digests=("d",), predictions=(str(tmp_path),), labels=LABELS, **uris)
    rows, (problem,) = shard_one(work)
    assert rows == []
    assert (problem.rule, problem.path) == ("lost-label-map", str(tmp_path / "pat%201%2E2.nii.gz"))
