"""What the registry holds: versions with their figures and lineage, and which of them is champion."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from data_pipelines.errors import UserError
from flows.registry import tracking

if TYPE_CHECKING:
    from mlflow import MlflowClient

CHAMPION = "champion"
PREVIOUS = "previous-champion"
"""Alias of the version that a new champion replaced: where a rollback leads."""


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """A registered version."""

    name: str
    version: str
    aliases: tuple[str, ...]
    metrics: dict[str, float]
    gate: str
    """What became of it at registration, and why."""
    tags: dict[str, str]
    """Lineage: digests and keys of the stages it comes from, the code's commit, the run."""
    inputs: tuple[str, ...] = ()
    """Names of the model's input columns; read where one version is looked at."""

    @property
    def uri(self) -> str:
        """``models:/NAME/VERSION``: unlike an alias, it never means another version."""
        return f"models:/{self.name}/{self.version}"


def list_versions(root: str, name: str | None = None) -> list[ModelVersion]:
    """Newest first, of one model or of all. Raises UserError where there is none of that name."""
    client = tracking.connect(root)
    names = [name] if name else [model.name for model in client.search_registered_models(max_results=1000)]
    found = []
    for each in sorted(names):
        versions = client.search_model_versions(f"name = '{each}'", max_results=1000)
        aliases = _aliases(client, each) if versions else {}
        versions = sorted(versions, key=lambda version: -int(version.version))
        found += [_described(version, aliases.get(str(version.version), ())) for version in versions]
    if name and not found:
        raise UserError(f"{name}: the registry at {tracking.tracking_uri(root)} has no such model; `unetflow models`")
    return found


def find_version(uri: str, root: str) -> ModelVersion:
    """The version that ``models:/NAME@ALIAS`` or ``models:/NAME/VERSION`` means now. Raises UserError."""
    from mlflow.exceptions import MlflowException
    from mlflow.models import get_model_info

    client = tracking.connect(root)
    name, alias, number = _parse(uri)
    try:
        found = client.get_model_version_by_alias(name, alias) if alias else client.get_model_version(name, number)
        aliases = _aliases(client, name)
        described = _described(found, aliases.get(str(found.version), ()))
        signature = get_model_info(described.uri).signature
    except MlflowException as error:
        raise UserError(
            f"{uri}: not in the registry at {tracking.tracking_uri(root)} ({error.message}); `unetflow models` lists "
            "what is"
        ) from None
    inputs = tuple(signature.inputs.input_names()) if signature else ()
    return replace(described, inputs=inputs)


def set_champion(root: str, name: str, version: str | None = None) -> ModelVersion:
    """Make a version champion: the one given, or the one before the present champion. Raises UserError."""
    versions = {each.version: each for each in list_versions(root, name)}
    if version is None:
        before = [each for each in versions.values() if PREVIOUS in each.aliases]
        if not before:
            raise UserError(f"{name}: there was no champion before this one; name a version (`unetflow models {name}`)")
        version = before[0].version
    if version not in versions:
        raise UserError(f"{name}: there is no version {version}; there are {', '.join(versions)}")
    promote(tracking.connect(root), name, version)
    return find_version(f"models:/{name}@{CHAMPION}", root)


def promote(client: MlflowClient, name: str, version: str) -> None:
    """Move the champion's alias, and remember whose it was."""
    holder = _aliases_by_name(client, name).get(CHAMPION)
    if holder not in (None, version):
        client.set_registered_model_alias(name, PREVIOUS, holder)
    client.set_registered_model_alias(name, CHAMPION, version)


def _parse(uri: str) -> tuple[str, str, str]:
    rest = uri.removeprefix("models:/")
    name, _, alias = rest.partition("@")
    path, _, number = name.rpartition("/")
    if rest == uri or not (alias or (path and number.isdigit())):
        raise UserError(f"{uri}: write a model as models:/NAME@champion or models:/NAME/VERSION")
    return (name, alias, "") if alias else (path, "", number)


def _aliases_by_name(client: MlflowClient, name: str) -> dict[str, str]:
    return {alias: str(number) for alias, number in client.get_registered_model(name).aliases.items()}


def _aliases(client: MlflowClient, name: str) -> dict[str, tuple[str, ...]]:
    held: dict[str, tuple[str, ...]] = {}
    for alias, number in sorted(_aliases_by_name(client, name).items()):
        held[number] = (*held.get(number, ()), alias)
    return held


def _described(version: Any, aliases: tuple[str, ...]) -> ModelVersion:
    tags = dict(version.tags)
    metrics = json.loads(tags.pop("unetflow.metrics", "{}"))
    gate = tags.pop("unetflow.gate", "")
    lineage = {name: value for name, value in tags.items() if name.startswith("unetflow.")}
    return ModelVersion(
        version.name, str(version.version), aliases, metrics, gate, lineage | {"mlflow.run_id": version.run_id or ""}
    )
