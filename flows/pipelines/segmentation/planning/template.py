"""Planned settings as commented YAML."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import wrap
from typing import Any

import yaml

from flows.pipelines.segmentation.planning.rules import Setting

WIDTH = 116


def plan_yaml(root: str, settings: Sequence[Setting]) -> str:
    """Write a configuration; above each field stands its reason."""
    lines = ["# unetflow run THIS.yaml", *_lines([Setting("data.root", root, ""), *settings], "", "")]
    return "\n".join(lines) + "\n"


def _lines(settings: Sequence[Setting], prefix: str, indent: str) -> list[str]:
    lines: list[str] = []
    names = dict.fromkeys(setting.path.removeprefix(prefix).split(".")[0] for setting in settings)
    for name in names:
        path = prefix + name
        own = [setting for setting in settings if setting.path == path]
        if own:
            lines += [f"{indent}# {line}" for line in wrap(own[0].reason, WIDTH - len(indent))]
            lines.append(f"{indent}{name}: {_value(own[0].value)}")
            continue
        inner = [setting for setting in settings if setting.path.startswith(f"{path}.")]
        lines += [f"{indent}{name}:", *_lines(inner, f"{path}.", indent + "  ")]
    return lines


def _value(value: Any) -> str:
    text: str = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10_000)
    return text.removesuffix("...\n").strip()
