"""Registered versions with their metrics and lineage; promotion and rollback of the champion."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from data_pipelines.errors import ConfigError, RegistryError
from flows.config.locations import process_lock
from flows.registry import tracking
from flows.registry.gate import CHAMPION

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion as MlflowVersion

PREVIOUS = "previous-champion"
"""Alias of the version that a new champion replaced: the target of a rollback."""
PAGE_SIZE = 1000
"""Entries on one page of a search; the most that MLflow gives."""
TAG_PREFIX = "unetflow."
METRICS_TAG, GATE_TAG = f"{TAG_PREFIX}metrics", f"{TAG_PREFIX}gate"
PIPELINE_FACT = "pipeline"
"""Name of the pipeline among the facts that a version is registered with."""
READS_AHEAD = {"reads_ahead": True}
"""Fact about a model whose predictions may overlap: networks take turns, while others read inputs or write results."""
REGISTER_TAG = f"{TAG_PREFIX}register_key"
"""Key of the registration that created a version: a later attempt at it finds the version again."""


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """A registered version."""

    name: str
    version: str
    aliases: tuple[str, ...]
    metrics: dict[str, float]
    gate: str
    """Alias that the gate gave it at registration, and the reason."""
    tags: dict[str, str]
    """Lineage: digests and keys of the stages it comes from, the code's commit, the run."""
    inputs: tuple[str, ...] = ()
    """Names of the model's input columns; filled where a single version is looked up."""
    params: tuple[str, ...] = ()
    """Names of the parameters that its predictions take; filled where a single version is looked up."""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """Facts about the model's input that it was registered with; filled where a single version is looked up."""

    @property
    def uri(self) -> str:
        """``models:/NAME/VERSION``: unlike an alias, it never means another version."""
        return f"models:/{self.name}/{self.version}"


def list_versions(root: str, name: str | None = None) -> list[ModelVersion]:
    """List versions of one model or of all, newest first. Raises RegistryError where there is no such model."""
    client = tracking.connect(root)
    names = [name] if name else [model.name for model in _all_pages(client.search_registered_models)]
    found = []
    for each in sorted(names):
        versions = _all_pages(partial(client.search_model_versions, _name_filter(each)))
        aliases = _aliases_by_version(client, each) if versions else {}
        versions = sorted(versions, key=lambda version: -int(version.version))
        found += [_describe(version, aliases.get(str(version.version), ())) for version in versions]
    if name and not found:
        uri = tracking.tracking_uri(root)
        raise RegistryError(f"{name}: the registry at {uri} has no such model; `unetflow models` lists them")
    return found


def find_version(uri: str, root: str) -> ModelVersion:
    """Look up ``models:/NAME@ALIAS`` or ``models:/NAME/VERSION``. Raises RegistryError where there is none."""
    from mlflow.exceptions import MlflowException
    from mlflow.models import get_model_info

    client = tracking.connect(root)
    name, alias, number = _parse(uri)
    try:
        found = client.get_model_version_by_alias(name, alias) if alias else client.get_model_version(name, number)
        aliases = _aliases_by_version(client, name)
        described = _describe(found, aliases.get(str(found.version), ()))
        info = get_model_info(described.uri)
    except MlflowException as error:
        raise RegistryError(
            f"{uri}: not in the registry at {tracking.tracking_uri(root)} ({error.message}); `unetflow models` lists "
            "what is"
        ) from None
    inputs = tuple(info.signature.inputs.input_names()) if info.signature else ()
    params = tuple(each.name for each in info.signature.params or ()) if info.signature else ()
    return replace(described, inputs=inputs, params=params, metadata=dict(info.metadata or {}))


def set_champion(root: str, name: str, version: str | None = None) -> ModelVersion:
    """Promote a version: the one given, or the previous champion. Raises RegistryError where there is none."""
    versions = {each.version: each for each in list_versions(root, name)}
    if version is None:
        before = [each for each in versions.values() if PREVIOUS in each.aliases]
        if not before:
            raise RegistryError(
                f"{name}: there is no previous champion; name a version (`unetflow models {name}` lists them)"
            )
        version = before[0].version
        if CHAMPION in before[0].aliases:  # a roll-back was ended between its two aliases
            raise RegistryError(
                f"{name}: version {version} is champion and previous champion: name a version "
                f"(`unetflow models {name}` lists them)"
            )
    if version not in versions:
        raise RegistryError(f"{name}: there is no version {version}; there are {', '.join(versions)}")
    find_version(f"models:/{name}/{version}", root)  # consumers must be able to load what they are given
    client = tracking.connect(root)
    with promotion_lock(client.tracking_uri, name):
        promote(client, name, version)
    return find_version(f"models:/{name}@{CHAMPION}", root)


def promotion_lock(server: str, name: str) -> AbstractContextManager[None]:
    """Let one process of this machine at a time look who is champion and replace it. (MLflow has no such lock.)"""
    return process_lock("promotion", f"{server} {name}")


def promote(client: MlflowClient, name: str, version: str) -> None:
    """Move the champion's alias to a version, and keep whose it was as the previous champion."""
    holder = _versions_by_alias(client, name).get(CHAMPION)
    if holder not in (None, version):
        client.set_registered_model_alias(name, PREVIOUS, holder)
    client.set_registered_model_alias(name, CHAMPION, version)


def find_champion(client: MlflowClient, name: str) -> MlflowVersion | None:
    """Return the champion's version; None where the model or its champion does not exist yet."""
    return find_by_alias(client, name, CHAMPION)


def find_incumbent(client: MlflowClient, name: str, version: str | None) -> MlflowVersion | None:
    """Return the version that ``version`` has to beat; None where there is none.

    That is the champion. Where ``version`` was promoted already, by an attempt that ended before its record, it is the
    one that it replaced: compared with itself it would not be better.
    """
    champion = find_champion(client, name)
    if champion is None or str(champion.version) != version:
        return champion
    return find_by_alias(client, name, PREVIOUS)


def find_registered(client: MlflowClient, name: str, key: str) -> MlflowVersion | None:
    """Return the version that an attempt at the registration ``key`` created; None where none did."""
    found = client.search_model_versions(f"{_name_filter(name)} and tags.`{REGISTER_TAG}` = '{key}'", max_results=1)
    return found[0] if found else None


def find_by_alias(client: MlflowClient, name: str, alias: str) -> MlflowVersion | None:
    """Return the version that an alias names; None where the model or the alias does not exist."""
    from mlflow.exceptions import MlflowException

    try:
        return client.get_model_version_by_alias(name, alias)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise


def _all_pages(search: Callable[..., Any]) -> list[Any]:
    """Return what a search finds on all pages: a page has at most 1,000 entries."""
    found: list[Any] = []
    token: str | None = None
    while True:
        page = search(max_results=PAGE_SIZE, page_token=token)
        found += page
        token = page.token
        if not token:
            return found


def _name_filter(name: str) -> str:
    """Return MLflow's filter of a model's name, which has no escapes: a name may have one kind of quotation mark."""
    if "'" in name and '"' in name:
        raise RegistryError(f"{name}: MLflow cannot search a name with both kinds of quotation marks: rename the model")
    return f'name = "{name}"' if "'" in name else f"name = '{name}'"


def _parse(uri: str) -> tuple[str, str, str]:
    rest = uri.removeprefix("models:/")
    name, _, alias = rest.partition("@")
    path, _, number = name.rpartition("/")
    if rest == uri or not (alias or (path and number.isdigit())):
        raise ConfigError(f"{uri}: write a model as models:/NAME@champion or models:/NAME/VERSION")
    return (name, alias, "") if alias else (path, "", number)


def _versions_by_alias(client: MlflowClient, name: str) -> dict[str, str]:
    return {alias: str(number) for alias, number in client.get_registered_model(name).aliases.items()}


def _aliases_by_version(client: MlflowClient, name: str) -> dict[str, tuple[str, ...]]:
    aliases: dict[str, tuple[str, ...]] = {}
    for alias, number in sorted(_versions_by_alias(client, name).items()):
        aliases[number] = (*aliases.get(number, ()), alias)
    return aliases


def _describe(version: MlflowVersion, aliases: tuple[str, ...]) -> ModelVersion:
    tags = dict(version.tags)
    metrics = json.loads(tags.pop(METRICS_TAG, "{}"))
    gate = tags.pop(GATE_TAG, "")
    lineage = {name: value for name, value in tags.items() if name.startswith(TAG_PREFIX)}
    return ModelVersion(
        version.name, str(version.version), aliases, metrics, gate, lineage | {"mlflow.run_id": version.run_id or ""}
    )
