"""A YAML file and overrides to a validated configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from data_pipelines.errors import ConfigError
from flows.config.pipeline import PipelineConfig

DEFAULT_PIPELINE = "segmentation"


def read_config(
    path: str | Path, overrides: Sequence[str], configs: Mapping[str, type[PipelineConfig]]
) -> PipelineConfig:
    """Read a YAML file and apply ``a.b=value`` overrides, whose values are YAML too.

    ``configs`` maps the value of the field ``pipeline`` (default: segmentation) to the configuration's class. Raises
    ConfigError naming the file, the field and the rule, for all wrong fields at once.
    """
    path = Path(path)
    values = _read_yaml(path)
    for override in overrides:
        _apply(values, override)
    kind = values.get("pipeline", DEFAULT_PIPELINE)
    if not isinstance(kind, str) or kind not in configs:
        raise ConfigError(f"{path}: pipeline: unknown pipeline {kind!r}; choose {' or '.join(configs)}")
    try:
        return configs[kind].model_validate(values)
    except ValidationError as error:
        wrong: dict[str, list[str]] = {}
        for each in error.errors():  # a field of several types breaks a rule of each
            wrong.setdefault(_field(each, values) or "(whole file)", []).append(_message(each))
        lines = [f"  {field}: {', or: '.join(messages)}" for field, messages in wrong.items()]
        raise ConfigError(f"{path}: {len(lines)} invalid field(s):\n" + "\n".join(lines)) from None


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = _apart(yaml.load(path.read_text(), _Loader)) or {}  # a SafeLoader
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); name an existing configuration file") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: is not valid YAML in UTF-8: {error}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: must hold fields such as `data:` and `train:`, found a {type(values).__name__}")
    return values


class _Loader(yaml.SafeLoader):
    """Loader that refuses a key that a group has twice: YAML would drop all but the last, such as a class."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Read a mapping as it is written, before others are merged into it (``<<``).

        Raises ConstructorError, which names the line, for a repeated key.
        """
        node = super().compose_mapping_node(anchor)
        keys = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if (key.tag, key.value) in keys:
                    raise yaml.constructor.ConstructorError(None, None, f"duplicate key {key.value}", key.start_mark)
                keys.add((key.tag, key.value))
        return node


def _apart(values: Any) -> Any:
    """Copy groups and lists that several anchors share: an override changes one of them."""
    if isinstance(values, dict):
        return {key: _apart(value) for key, value in values.items()}
    return [_apart(value) for value in values] if isinstance(values, list) else values


def _apply(values: dict[str, Any], override: str) -> None:
    name, separator, text = override.partition("=")
    if not separator or not name:
        raise ConfigError(f"--set {override}: write it as a.b=value, for example --set train.num_steps=100")
    *parents, leaf = name.split(".")
    for parent in parents:
        values = values.setdefault(parent, {})
        if not isinstance(values, dict):
            raise ConfigError(f"--set {override}: {parent} is a value, not a group of fields")
    try:
        values[leaf] = yaml.load(text, _Loader)  # a SafeLoader
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {override}: the value is not valid YAML: {error}") from None
    if values[leaf] is None and text.strip().lower() not in ("", "~", "null"):
        raise ConfigError(f"--set {override}: the value is a comment in YAML: put it in quotes, as in a.b='\"#x\"'")


def _field(error: Any, values: Any) -> str:
    """Return the field of a pydantic error as ``--set`` takes it, without the name of a chosen alternative."""
    *parents, leaf = error["loc"] or ("",)
    names, group = [], values
    for part in parents:
        if not isinstance(group, dict) or part in group:
            names.append(str(part))
            group = group[part] if isinstance(group, dict) else None
    is_alternative = isinstance(leaf, str) and bool(names) and not isinstance(group, dict)
    if not is_alternative and (not isinstance(group, dict) or leaf in group or error["type"] == "missing"):
        names.append(str(leaf))
    return ".".join(names)


def _message(error: Any) -> str:
    """Return one pydantic error as a sentence."""
    if error["type"] == "extra_forbidden":
        return "unknown field; `unetflow config --reference` lists all fields"
    message = error["msg"].removeprefix("Value error, ")
    return message if error["type"] == "value_error" else f"{message} (got {error['input']!r})"
