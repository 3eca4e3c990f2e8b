"""Results as text for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from data_pipelines.progress import rounded_duration
from flows.metrics import METRICS, parse_metric_name

if TYPE_CHECKING:
    from flows.doctor.finding import Finding
    from flows.registry.models import ModelVersion
    from flows.running.execution import PlannedStage, RunSummary
    from flows.running.submit import JobRow

NUM_METRICS_LISTED = 4
"""Metrics of a version in a list of models."""


def plan_text(stages: Sequence[PlannedStage]) -> str:
    """Write what ``--dry-run`` prints."""
    lines = []
    for stage in stages:
        key = stage.key[:12] if stage.key else "(key known once the stage before is done)"
        lines.append(f"{stage.name:<18} {'done' if stage.done else 'to run':<7} {key}")
    return "\n".join(lines)


def summary_text(summary: RunSummary) -> str:
    """Write what a pipeline prints in the end."""
    took = {s.name: "cache hit" if s.cached else f"{s.seconds:.0f} s" for s in summary.stages}
    lines = ["", "stages   " + ", ".join(f"{name} {text}" for name, text in took.items())]
    if summary.metrics:
        lines += ["", *metric_lines(summary.metrics)]
    if summary.report:
        lines += ["", f"report   {summary.report}"]
    if summary.model_uri:
        lines += [
            f"model    {summary.model_uri} (version {summary.model_version}: {summary.reason})",
            "",
            "load it with",
            f'  import mlflow; mlflow.set_tracking_uri("{summary.tracking_uri}")',
            f'  model = mlflow.pyfunc.load_model("{summary.model_uri}")',
        ]
    return "\n".join(lines)


def metric_lines(metrics: Mapping[str, float]) -> list[str]:
    """Write metrics of classes as a table, classes down, and any others one per line."""
    parts = {name: parse_metric_name(name) for name in metrics}
    columns = [m for m in METRICS if m in metrics and METRICS[m].is_main and any(n.startswith(f"{m}/") for n in parts)]
    classes = list(dict.fromkeys(p.part for p in parts.values() if p.metric.name in columns and p.part))
    if classes and not any(p.protocol for p in parts.values()):
        return _class_table(metrics, columns, classes)
    width = max(map(len, metrics))
    return [f"{name:<{width}}{value:>12.4f}" for name, value in metrics.items()]


def _class_table(metrics: Mapping[str, float], columns: Sequence[str], classes: Sequence[str]) -> list[str]:
    width = max(len(name) for name in [*classes, "class"])
    lines = [f"{'class':<{width}}" + "".join(f"{METRICS[column].titled:>14}" for column in columns)]
    for name, suffix in [*((c, f"/{c}") for c in classes), ("mean", "")]:
        cells = [f"{metrics[c + suffix]:>14.4f}" if c + suffix in metrics else f"{'absent':>14}" for c in columns]
        lines.append(f"{name:<{width}}" + "".join(cells))
    return lines


def no_jobs_text(head_start: str) -> str:
    """Write that a cluster has no pipelines, and why those that were submitted may be missing."""
    from flows.cluster.job import FORGOTTEN

    since = f" since its head was started at {head_start}" if head_start else ""
    return f"no pipeline was submitted to this cluster{since}.\n{FORGOTTEN}"


def status_text(rows: Sequence[JobRow], now: float) -> str:
    """Write what runs at ``now``, in seconds since 1970: stages of a job indented below their pipeline."""
    if not rows:
        return "nothing runs"
    lines = []
    for row in rows:
        indent = "" if row.job_id == row.owner else "  "
        lines.append(f"{indent + row.what:<28} {row.state:<10} {row.seconds:>7.0f} s  {row.job_id}")
        if details := "; ".join(filter(None, [_progress_text(row, now), row.message])):
            lines.append(f"{indent}    {details}")
    return "\n".join(lines)


def _progress_text(row: JobRow, now: float) -> str:
    """Write the progress of a training; empty for other rows."""
    status = row.progress
    if status is None or not status.num_steps:
        return ""
    parts = [f"step {status.step}/{status.num_steps}"]
    if row.state == "running" and status.seconds_left is not None:
        parts.append(f"{rounded_duration(status.seconds_left - (now - status.updated))} left")
    if status.checkpoint_at is not None:
        parts.append(f"checkpoint {rounded_duration(now - status.checkpoint_at)} ago")
    if status.goodput_percent is not None:
        parts.append(f"goodput {status.goodput_percent:.0f} %")
    return ", ".join(parts)


def models_text(versions: Sequence[ModelVersion], *, lineage: bool) -> str:
    """Write one line per version with its metrics; with ``lineage`` what it was made from below."""
    if not versions:
        return "the registry is empty"
    lines = []
    for version in versions:
        metrics = ", ".join(f"{name} {v:.4f}" for name, v in list(version.metrics.items())[:NUM_METRICS_LISTED])
        aliases = ", ".join(f"@{alias}" for alias in version.aliases)
        lines.append(f"{version.name:<32} {version.version:>4}  {aliases:<22} {metrics}")
        if lineage:
            lines += [f"    {name:<28} {value}" for name, value in {"gate": version.gate, **version.tags}.items()]
    return "\n".join(lines)


def findings_text(findings: Sequence[Finding]) -> str:
    """Write one line per finding, the remedy below it."""
    marks = {"ok": "ok      ", "warning": "warning ", "bad": "BAD     "}
    lines = []
    for finding in findings:
        lines.append(f"{marks[finding.state]}{finding.subject:<16}{finding.text}")
        if finding.remedy:
            lines.append(f"{'':<24}-> {finding.remedy}")
    return "\n".join(lines)
