"""Explain predictions of a registered model: its pipeline draws what the networks look at."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path

from data_pipelines.errors import DataError, InputError
from data_pipelines.specs import Spec
from data_pipelines.temporary import temporary_folder
from data_pipelines.volumes.files import strip_suffix
from flows.pipelines.catalog import PIPELINES
from flows.registry.champion import fetch_bundle, readable_bundle
from flows.registry.models import PIPELINE_FACT, ModelVersion, find_version
from flows.running.prediction.inputs import plan_items
from flows.running.prediction.items import Item
from flows.running.prediction.volumes import Naming
from flows.stages.pipeline import Explainer

logger = logging.getLogger(__name__)


class ExplanationSummary(Spec):
    """Files and failures of one call."""

    model_uri: str
    output: str
    files: tuple[str, ...]
    """Pictures, relative to ``output``."""
    failures: dict[str, str]
    """Name of each input that could not be explained, to the error."""


def explain(model_uri: str, source: str, output: str, class_name: str | None, root: str) -> ExplanationSummary:
    """Write pictures of each input to a folder of its name below ``output``, over what is there.

    ``source`` is what ``predict`` takes. Raises UserError where there is no such model, input or class, and for a
    pipeline that explains nothing.
    """
    version = find_version(model_uri, root)
    folder = Path(os.path.abspath(Path(output).expanduser()))
    takes_prompts = "prompt" in version.inputs
    plan = plan_items(source, folder, takes_prompts=takes_prompts, naming=Naming.of(version.metadata))
    for path, reason in plan.skipped.items():
        logger.warning("explain: %s is skipped: %s", path, reason)
    _check_folders(plan.items, folder)
    with temporary_folder("explain") as temporary:
        explainer = _load(version, temporary, class_name)
        files, failures = _explain_all(explainer, plan.items, folder)
    return ExplanationSummary(model_uri=version.uri, output=str(folder), files=tuple(files), failures=failures)


def _check_folders(items: Sequence[Item], folder: Path) -> None:
    """Raise InputError where the pictures of two inputs would have one folder, or lie among the files of an input."""
    owners: dict[str, Item] = {}
    for item in items:
        name = strip_suffix(Path(item.output).name)
        if folder / name in item.files:
            raise InputError(f"{folder / name}: its pictures would lie among its slices; name another output folder")
        if (other := owners.setdefault(name.casefold(), item)) is not item:
            inputs = " and ".join(str((each.files or [Path(each.output)])[0]) for each in (other, item))
            raise InputError(f"{inputs}: their pictures would lie in one folder, {name}; explain them one by one")


def _load(version: ModelVersion, folder: Path, class_name: str | None) -> Explainer:
    name = version.metadata.get(PIPELINE_FACT, "")
    pipeline = PIPELINES.get(name)
    if pipeline is None or pipeline.load_explainer is None:
        known = ", ".join(name for name, pipeline in PIPELINES.items() if pipeline.load_explainer is not None)
        of = f"of pipeline {name}" if name else "registered without the name of its pipeline: register it again"
        raise InputError(f"{version.uri} is {of}; models of {known} can be explained")
    with readable_bundle():
        return pipeline.load_explainer(fetch_bundle(version.uri, folder), class_name)


def _explain_all(explainer: Explainer, items: Sequence[Item], folder: Path) -> tuple[list[str], dict[str, str]]:
    """Explain every input; return the files and the errors of those that training would have refused."""
    files: list[str] = []
    failures: dict[str, str] = {}
    for number, item in enumerate(items, start=1):
        name = strip_suffix(Path(item.output).name)
        logger.info("explain: %s, %d of %d", name, number, len(items))
        try:
            files += [str(path.relative_to(folder)) for path in explainer(item.row, folder / name)]
        except (DataError, InputError) as error:
            failures[name] = f"{name}: {error}"
    return files, failures
