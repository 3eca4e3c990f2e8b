"""A folder of results of nnU-Net 2 to a registered model."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from safetensors.torch import save_file

from data_pipelines.digests import digest_of, uri_digests
from data_pipelines.errors import WeightsError
from flows.installation import code_version
from flows.pipelines.segmentation.bundle import Bundle
from flows.pipelines.segmentation.nnunet.plans import files_per_image, read_json, read_plans
from flows.pipelines.segmentation.register import CODE, REQUIREMENTS, input_example, input_facts, signature
from flows.registry import tracking
from flows.registry.bundle import WEIGHTS, write_bundle
from flows.registry.candidate import ModelFiles, Registrable
from flows.registry.models import REGISTER_TAG, TAG_PREFIX, find_registered
from flows.registry.register import create_version, log_model
from unet_models.formats.nnunet import Weights, convert_weights, read_checkpoint
from unet_models.networks.build import build_network

logger = logging.getLogger(__name__)

CHECKPOINT = "checkpoint_final.pth"
EXPERIMENT = "imported"


@dataclass(frozen=True, slots=True)
class Imported:
    """A model of nnU-Net's, registered."""

    model_uri: str
    """``models:/NAME/VERSION``. It has no alias: nothing was compared."""
    configuration: str
    folds: tuple[str, ...]
    """Folds whose logits are averaged."""


def import_results(
    folder: Path,
    root: str,
    name: str | None = None,
    folds: Sequence[str] = (),
    precision: Literal["fp32", "bf16"] = "fp32",
) -> Imported:
    """Register the model of a folder with ``plans.json``, ``dataset.json`` and ``fold_*/checkpoint_final.pth``.

    ``folds`` names some of the folds, default: all that are there; logits of several are averaged. ``name`` is by
    default that of the data set. The same results are registered once. Raises WeightsError for what is no such folder,
    and for models that ours would not predict alike.
    """
    name = name or str(read_json(folder / "plans.json").get("dataset_name") or folder.resolve().parent.name)
    paths = find_checkpoints(folder, folds)
    checkpoints = [read_checkpoint(path) for path in paths.values()]
    kinds = {(each.configuration, each.mirror_axes) for each in checkpoints}
    if len(kinds) > 1:
        raise WeightsError(f"{folder}: folds are of different configurations: {sorted(kinds)}; name some with --fold")
    ((configuration, mirror_axes),) = kinds
    bundle = read_plans(folder, configuration, mirror_axes, len(checkpoints))
    bundle = bundle.model_copy(update={"predict": bundle.predict.model_copy(update={"precision": precision})})
    weights = member_weights(bundle, [each.weights for each in checkpoints])
    logger.info("%s: %s, folds %s", folder, configuration, ", ".join(paths))
    digests = uri_digests(map(str, paths.values()))
    key = digest_of([bundle.model_dump(mode="json"), {fold: digests[str(path)] for fold, path in paths.items()}])
    version = _register(bundle, weights, name, root, key, f"nnU-Net, {configuration}, folds {', '.join(paths)}")
    return Imported(f"models:/{name}/{version}", configuration, tuple(paths))


def find_checkpoints(folder: Path, folds: Sequence[str] = ()) -> dict[str, Path]:
    """Find the checkpoint of each fold, by its name; of all where none is named, without that of ``fold_all`` beside
    others, as nnU-Net predicts. Raises WeightsError where there are none, or one is missing."""
    found = {path.parent.name.removeprefix("fold_"): path for path in sorted(folder.glob(f"fold_*/{CHECKPOINT}"))}
    if not found:
        raise WeightsError(f"{folder}: there is no fold_*/{CHECKPOINT}; name a folder TRAINER__PLANS__CONFIGURATION")
    if missing := [fold for fold in folds if fold not in found]:
        raise WeightsError(f"{folder}: there is no fold {missing[0]}; there are {', '.join(found)}")
    if not folds and len(found) > 1 and "all" in found:
        del found["all"]
        logger.warning("%s: fold_all is left out, as by nnU-Net; name it with --fold to import it", folder)
    return {fold: found[fold] for fold in folds} if folds else found


def member_weights(bundle: Bundle, members: Sequence[Weights]) -> Weights:
    """Convert the weights of each member to those of the network that a bundle describes."""
    sizes = len(bundle.channels), bundle.labels.num_outputs, bundle.network_ndim
    ours = build_network(bundle.model, *sizes).state_dict()
    converted = [convert_weights(theirs, ours) for theirs in members]
    if len(converted) == 1:
        return converted[0]
    return {f"members.{n}.{name}": tensor for n, each in enumerate(converted) for name, tensor in each.items()}


def write_files(folder: Path, bundle: Bundle, weights: Weights) -> ModelFiles:
    """Write a model's files."""
    write_bundle(folder, bundle)
    save_file(weights, folder / WEIGHTS)
    return ModelFiles(signature(), input_example(bundle))


def _register(bundle: Bundle, weights: Weights, name: str, root: str, key: str, source: str) -> str:
    """Register the model where these results are not yet; return the version."""
    client = tracking.connect(root)
    if found := find_registered(client, name, key):
        return str(found.version)
    model = Registrable(
        description="Segmentation U-Nets trained by nnU-Net.",
        code=CODE,
        requirements=REQUIREMENTS,
        write_files=lambda folder: write_files(folder, bundle, weights),
        metadata=input_facts(len(bundle.patch_size), files_per_image(bundle), has_channel_numbers=True),
    )
    run_id = tracking.open_run(client, EXPERIMENT, key, name)
    model_id = log_model(name, "segmentation", model, run_id, {})
    tags = {REGISTER_TAG: key, f"{TAG_PREFIX}source": source, f"{TAG_PREFIX}code": code_version()}
    version = create_version(client, name, model, model_id, run_id, tags)
    client.update_model_version(name, version, model_card(bundle, name, version, source))
    return version


def model_card(bundle: Bundle, name: str, version: str, source: str) -> str:
    """Write the model card in Markdown."""
    return "\n".join(
        [
            f"# {name}",
            f"Imported: {source}. Segments {', '.join(bundle.labels.targets)} in "
            f"{', '.join(bundle.channels)} images. Not evaluated here.",
            "",
            "```python",
            "import mlflow",
            f'model = mlflow.pyfunc.load_model("models:/{name}/{version}")',
            'labels = model.predict({"path": ["image.nii.gz"]})[0]  # in the file\'s own geometry',
            "```",
            f"Labels: {bundle.labels.describe()}. Not a medical device.",
        ]
    )
