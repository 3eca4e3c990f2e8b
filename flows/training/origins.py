"""Weights to start a training from: found in the registry or in files, by a URI, and checked against what they mean.

A place is a safetensors file, or a folder: of a finished training (``record.json``), of a checkpoint
(``checkpoint.json``), of a registered model (``unetflow.json``, ``MLmodel``), or of a network of diffusers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from data_pipelines import storage
from data_pipelines.errors import ConfigError, RegistryError, WeightsError
from data_pipelines.temporary import temporary_folder
from flows.config.pipeline import PipelineConfig
from flows.registry import tracking
from flows.registry.bundle import BUNDLE_ARTIFACT, BUNDLE_FILE, WEIGHTS
from flows.registry.gate import CHAMPION
from flows.registry.models import TAG_PREFIX, ModelVersion, find_champion, find_version
from flows.stages.record import RECORD, Figures, Record, read_record
from flows.training.description import read_description
from flows.training.figures import TrainingFigures
from flows.training.initial import Describe, Meaning, Origin
from flows.training.provenance import TRAINED_ON, check_no_leak, iter_trainings
from unet_models.specs.loop import FROM_CHAMPION, FROM_REGISTRY

_CHECKPOINT = "checkpoint.json"
_DIFFUSERS = "diffusion_pytorch_model.safetensors"
_WEIGHTS = (WEIGHTS, _DIFFUSERS, f"unet/{_DIFFUSERS}")
"""Paths of the weights within a folder, in search order."""


def find_origin(
    config: PipelineConfig, wanted: str, inputs: Sequence[Record[Figures]], meaning: Meaning, describe: Describe
) -> Origin | None:
    """Find the weights that ``train.init`` names; None for a champion where there is none yet.

    The champion of this very model that was trained on these very inputs is not its own start: its own start is
    returned, so that the stage's key is that of its training, a cache hit. Raises UserError where there are no such
    weights, where they are bound to something else than ``meaning`` says, or a sample that is held out now shaped them.
    """
    root, name = config.storage_uri, config.registry.name
    if wanted == FROM_CHAMPION:
        champion = find_champion(tracking.connect(root), name)
        if champion is None:
            return None
        wanted = f"models:/{name}/{champion.version}"
        origin = _of_version(find_version(wanted, root), root, inputs, meaning, describe, is_own=True)
    elif wanted.startswith("models:/"):
        is_own = wanted == f"models:/{name}@{CHAMPION}"
        origin = _of_version(find_version(wanted, root), root, inputs, meaning, describe, is_own=is_own)
    elif wanted.startswith(FROM_REGISTRY):
        tracking.connect(root)
        origin = _of_registry(wanted, describe)
    else:
        origin = _of_place(wanted, describe)
    if origin is not None:
        check_bound(origin, meaning)
        if origin.trained_on:
            check_no_leak(inputs[0].output("index"), origin.trained_on, origin.source)
    return origin


def check_bound(origin: Origin, ours: Meaning) -> None:
    """Raise ConfigError where a training would start from weights that are of no use here."""
    theirs = origin.meaning.bound_to if origin.meaning else {}
    changed = [field for field, value in ours.bound_to.items() if field in theirs and theirs[field] != value]
    if changed:
        raise ConfigError(
            f"train.init: {' and '.join(changed)} {'are' if len(changed) > 1 else 'is'} not what {origin.source} was "
            f"trained with, so its weights are unusable here; keep them as they were{_shown(theirs, changed)} (for "
            "networks trained by its pipeline: name their folders in encode), or leave init out"
        )


def _shown(values: Mapping[str, Any], fields: Sequence[str]) -> str:
    """List settings; digests of other networks say nothing."""
    shown = ", ".join(f"{field}={values[field]}" for field in fields if not field.startswith("encode."))
    return f", {shown}" if shown else ""


def identity_of(origin: Origin, meaning: Meaning) -> Mapping[str, Any]:
    """Return what of an origin changes the trained weights: their content, whatever they are called."""
    return {"sha256": origin.sha256, "member": origin.member, "keeps_classes": keeps_classes(origin, meaning)}


def keeps_classes(origin: Origin, ours: Meaning) -> bool:
    """Tell whether rows of the weights stand for the same classes in the same order; taken to be so where unknown."""
    theirs = origin.meaning.classes if origin.meaning else ()
    return not theirs or not ours.classes or _plain(theirs) == _plain(ours.classes)


def _plain(classes: tuple[str, ...]) -> list[str]:
    return [name.strip().casefold() for name in classes]


@contextmanager
def open_weights(origin: Origin) -> Iterator[Path]:
    """Yield the safetensors file of an origin as a local path. Raises WeightsError where it has changed since."""
    if origin.uri.startswith(FROM_REGISTRY):
        with _fetched(origin.uri) as folder:
            path = _weights_of(folder)
            _check_unchanged(origin, path)
            yield path
    else:
        with storage.local_file(origin.uri) as path:
            _check_unchanged(origin, path)
            yield path


def _check_unchanged(origin: Origin, path: Path) -> None:
    if storage.digest(str(path)) != origin.sha256:
        raise WeightsError(f"{origin.source}: the file has changed since this training was planned; run it again")


# --- the registry ----------------------------------------------------------------------------------------------------


def _of_version(
    version: ModelVersion,
    root: str,
    inputs: Sequence[Record[Figures]],
    meaning: Meaning,
    describe: Describe,
    *,
    is_own: bool,
) -> Origin | None:
    """Describe a version's weights: by the records of its trainings where they are in this storage, else its files.

    Of several networks, one for each fold, one that was trained on none of the samples that are held out now; of a pair
    or a cascade, whose networks differ, one that was made for what ``meaning`` says.
    """
    trainings = dict(iter_trainings(version.tags, root))
    if not trainings:
        if is_own:
            raise ConfigError(
                f"train.init: the training of {version.name} version {version.version} is not in {root}; run with the "
                f"storage it was trained in, name {version.uri}, or leave init out"
            )
        return _of_registry(version.uri, describe)
    for suffix, record in trainings.items():
        if is_own and _is_of(version, suffix, inputs):
            return record.figures.init.origin if record.figures.init else None
    origins = [_of_record(record, version.uri, len(trainings) > 1) for record in trainings.values()]
    origins.sort(key=lambda each: each.meaning is None or each.meaning.made_for != meaning.made_for)  # alike first
    return next((each for each in origins[:-1] if _is_disjoint(each, inputs)), origins[-1])


def _is_of(version: ModelVersion, suffix: str, inputs: Sequence[Record[Figures]]) -> bool:
    return all(version.tags.get(f"{TAG_PREFIX}{each.stage}{suffix}_digest") == each.digest for each in inputs)


def _is_disjoint(origin: Origin, inputs: Sequence[Record[Figures]]) -> bool:
    try:
        check_no_leak(inputs[0].output("index"), origin.trained_on, origin.source)
    except ConfigError:
        return False
    return True


def _of_registry(uri: str, describe: Describe) -> Origin:
    """Describe the weights of a model by its files."""
    with _fetched(uri) as folder:
        return _of_bundle(folder, uri, uri, describe)


@contextmanager
def _fetched(uri: str) -> Iterator[Path]:
    """Download a model of the registry; yield the folder that its pipeline wrote."""
    import mlflow
    from mlflow.exceptions import MlflowException

    with temporary_folder("init") as folder:
        try:
            model = Path(mlflow.artifacts.download_artifacts(uri, dst_path=str(folder)))
        except (MlflowException, OSError) as error:
            raise RegistryError(
                f"train.init: {uri} cannot be fetched from {mlflow.get_tracking_uri()}: {error}"
            ) from None
        yield model / "artifacts" / BUNDLE_ARTIFACT if (model / "MLmodel").is_file() else model


# --- files -----------------------------------------------------------------------------------------------------------


def _of_place(place: str, describe: Describe) -> Origin:
    """Describe the weights of a file or folder. Raises WeightsError where it holds none."""
    folder, _, name = place.rpartition("/")
    if storage.size(place) is None:
        return _of_folder(place, describe)
    if name in (RECORD, _CHECKPOINT, BUNDLE_FILE) or (name == WEIGHTS and _has(folder, _CHECKPOINT, BUNDLE_FILE)):
        return _of_folder(folder, describe)
    if not name.endswith(".safetensors"):
        raise WeightsError(
            f"train.init: {place} is no .safetensors, and nothing else is read: a pickle may run code. Import results "
            "of nnU-Net by `unetflow import nnunet`; write other weights by safetensors.torch.save_file"
        )
    meaning = _meaning(read_description(folder), describe) if name == _DIFFUSERS else None
    return Origin(source=place, uri=place, sha256=storage.digest(place), meaning=meaning, unknown_base=place)


def _of_folder(folder: str, describe: Describe) -> Origin:
    if _has(folder, RECORD):
        record = read_record(folder, TrainingFigures)
        if record is None or TRAINED_ON not in record.outputs:
            raise WeightsError(f"train.init: {folder}/{RECORD} is not the record of a training of this version")
        return _of_record(record, folder, False)
    if _has(folder, _CHECKPOINT):
        return _of_checkpoint(folder)
    if _has(folder, "MLmodel"):
        folder = storage.join(folder, "artifacts", BUNDLE_ARTIFACT)
    with storage.local_folder(folder) as local:
        origin = _of_bundle(local, folder, "", describe)
    return origin


def _has(folder: str, *names: str) -> bool:
    return any(storage.size(storage.join(folder, name)) is not None for name in names)


def _of_record(record: Record[TrainingFigures], source: str, is_one_of_several: bool) -> Origin:
    figures = record.figures
    base = figures.init.origin.unknown_base if figures.init else ""
    return Origin(
        source=f"{source} (training {record.key[:12]})" if is_one_of_several else source,
        uri=record.output("weights"),
        sha256=record.outputs["weights"].sha256,
        meaning=figures.meaning,
        trained_on=record.output(TRAINED_ON),
        unknown_base=base,
    )


def _of_checkpoint(folder: str) -> Origin:
    """Describe a checkpoint, and what its training says where that has ended. Raises WeightsError for a damaged one."""
    from unet_models.training.checkpoint import MODEL, check_checkpoint

    with storage.local_folder(folder) as local:
        try:
            marker = check_checkpoint(local)
        except WeightsError as error:
            raise WeightsError(f"train.init: {folder}: {error}; name another checkpoint") from None
    stage = folder.rsplit("/", 2)[0]  # STAGE/ATTEMPT/step-N
    record = read_record(stage, TrainingFigures) if _has(stage, RECORD) else None
    known = _of_record(record, folder, False) if record and TRAINED_ON in record.outputs else None
    uri, sha256 = storage.join(folder, MODEL), marker.files[MODEL].sha256
    if known is not None:
        return known.model_copy(update={"uri": uri, "sha256": sha256})
    return Origin(source=folder, uri=uri, sha256=sha256, unknown_base=folder)


def _of_bundle(local: Path, source: str, uri: str, describe: Describe) -> Origin:
    """Describe the weights in a folder; ``uri`` is what they are read from, by default their file in ``source``."""
    path = _weights_of(local, source)
    bundle = read_description(str(local) if uri else source)
    return Origin(
        source=source,
        uri=uri or storage.join(source, path.relative_to(local).as_posix()),
        sha256=storage.digest(str(path)),
        member=0 if bundle.get("num_members", 1) > 1 else None,
        meaning=_meaning(bundle, describe),
        unknown_base=source,
    )


def _weights_of(folder: Path, source: str = "") -> Path:
    """Return the file of weights in a folder. Raises WeightsError where there is none."""
    for name in _WEIGHTS:
        if (folder / name).is_file():
            return folder / name
    raise WeightsError(
        f"train.init: {source or folder} holds no weights; name a .safetensors file, a folder with "
        f"{' or '.join(_WEIGHTS)}, a checkpoint, the folder of a finished training, or a model as models:/NAME/VERSION "
        "or runs:/ID/NAME"
    )


def _meaning(bundle: Mapping[str, Any], describe: Describe) -> Meaning | None:
    """Read what the weights stand for; None where nothing beside them says so, or another pipeline wrote it."""
    try:
        return describe(bundle) if bundle else None
    except (KeyError, TypeError, ValueError):  # pydantic's ValidationError among them
        return None
