"""Planned settings as commented YAML."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import wrap
from typing import Any

import yaml

from flows.pipelines.segmentation.planning.candidates import Candidate
from flows.pipelines.segmentation.planning.options import Setting

WIDTH = 116
CASCADE = "3d_cascade"
"""Name of the candidate that sees what the low resolution says of an image."""
TITLES = {
    "2d": "slices",
    "3d_fullres": "full resolution",
    "3d_lowres": "a low resolution, whose patches see a quarter of the image",
}
"""Titles of the candidates."""


def plan_yaml(root: str, settings: Sequence[Setting], others: Sequence[Candidate] = ()) -> str:
    """Write a configuration; above each field stands its reason, and above all what else the data set allows."""
    notes = [f"# {line}" for other in others for line in wrap(_describe(other), WIDTH, subsequent_indent="    ")]
    names = {setting.path.split(".")[1] for setting in settings if setting.path.startswith("candidates.")}
    if names & {"3d_lowres", "3d_fullres"} and CASCADE not in names:
        notes.append("# Not planned, a cascade of the low and the full resolution, which takes all folds: --folds")
    fields = _lines([Setting("data.root", root, ""), *settings], "", "")
    lines = ["# unetflow run THIS.yaml", *notes, *fields]
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


def _describe(candidate: Candidate) -> str:
    sizes = candidate.sizes
    patch, spacing = ("x".join(f"{each:.4g}" for each in of) for of in (sizes.topology.patch_size, candidate.spacing))
    return (
        f"Not chosen, {TITLES[candidate.name]}: patches of {patch} at {spacing} mm, "
        f"strides {_value([list(stride) for stride in sizes.topology.strides])}"
    )


def _value(value: Any) -> str:
    text: str = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10_000)
    return text.removesuffix("...\n").strip()
