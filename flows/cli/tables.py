"""Results as text for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flows.doctor.finding import Finding
    from flows.running.submit import JobRow
    from flows.registry.models import ModelVersion


def plan_text(stages: list[dict[str, Any]]) -> str:
    """What ``--dry-run`` prints."""
    lines = []
    for stage in stages:
        key = stage["key"][:12] if stage["key"] else "(key known once the stage before is done)"
        lines.append(f"{stage['name']:<18} {'done' if stage['done'] else 'to run':<7} {key}")
    return "\n".join(lines)


def summary_text(result: dict[str, Any]) -> str:
    """What a pipeline prints in the end."""
    took = {s["name"]: "found done" if s["cached"] else f"{s['seconds']:.0f} s" for s in result["stages"]}
    lines = ["", "stages   " + ", ".join(f"{name} {text}" for name, text in took.items())]
    if result["metrics"]:
        table = _class_table if result["pipeline"] == "segmentation" else _metrics_table
        lines += ["", *table(result["metrics"]), "", f"report   {result['report']}"]
    if result["model_uri"]:
        lines += [
            f"model    {result['model_uri']} (version {result['model_version']}: {result['reason']})",
            "",
            "load it with",
            f'  import mlflow; mlflow.set_tracking_uri("{result["tracking_uri"]}")',
            f'  model = mlflow.pyfunc.load_model("{result["model_uri"]}")',
        ]
    return "\n".join(lines)


def _metrics_table(metrics: dict[str, float]) -> list[str]:
    width = max(map(len, metrics))
    return [f"{name:<{width}}{value:>12.4f}" for name, value in metrics.items()]


def _class_table(metrics: dict[str, float]) -> list[str]:
    """Classes down, measures across."""
    columns = [("dice", "Dice"), ("iou", "IoU"), ("hd95_mm", "HD95 mm"), ("surface_dice", "surface Dice")]
    classes = [name.split("/", 1)[1] for name in metrics if name.startswith("dice/")]
    width = max(len(name) for name in [*classes, "class"])
    lines = [f"{'class':<{width}}" + "".join(f"{label:>14}" for _, label in columns)]
    for name, suffix in [*((c, f"/{c}") for c in classes), ("mean", "")]:
        cells = [f"{metrics[c + suffix]:>14.4f}" if c + suffix in metrics else f"{'absent':>14}" for c, _ in columns]
        lines.append(f"{name:<{width}}" + "".join(cells))
    return lines


def jobs_text(rows: Sequence[JobRow]) -> str:
    """Pipelines, their stages indented below them."""
    if not rows:
        return "no pipeline was submitted to this cluster"
    lines = []
    for row in rows:
        indent = "" if row.job_id == row.owner else "  "
        lines.append(f"{indent + row.what:<28} {row.state:<10} {row.seconds:>7.0f} s  {row.job_id}")
    return "\n".join(lines)


def models_text(versions: Sequence[ModelVersion], *, lineage: bool) -> str:
    """A line a version, its metrics beside it; with ``lineage`` what it was made from below."""
    if not versions:
        return "the registry is empty"
    lines = []
    for version in versions:
        metrics = ", ".join(f"{name} {value:.4f}" for name, value in list(version.metrics.items())[:4])
        aliases = ", ".join(f"@{alias}" for alias in version.aliases)
        lines.append(f"{version.name:<32} {version.version:>4}  {aliases:<22} {metrics}")
        if lineage:
            lines += [f"    {name:<28} {value}" for name, value in {"gate": version.gate, **version.tags}.items()]
    return "\n".join(lines)


def findings_text(findings: Sequence[Finding]) -> str:
    """A line a finding, the remedy below it."""
    marks = {"ok": "ok      ", "warning": "warning ", "bad": "BAD     "}
    lines = []
    for finding in findings:
        lines.append(f"{marks[finding.state]}{finding.subject:<16}{finding.text}")
        if finding.remedy:
            lines.append(f"{'':<24}-> {finding.remedy}")
    return "\n".join(lines)
