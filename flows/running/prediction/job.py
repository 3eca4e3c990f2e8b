"""``unetflow predict`` as one job, where the cluster is another machine."""

from __future__ import annotations

import shlex
from pathlib import Path

from data_pipelines.digests import digest_of
from flows.cluster.job import PREDICTION_TAG, JobRequest, Relay, ensure_job, follow, require_success
from flows.cluster.jobs_api import connect
from flows.cluster.package import packed
from flows.config.specs import ComputeSpec
from flows.running.prediction.predict import NO_OPTIONS, Options, PredictionSummary


def predict_as_job(
    model_uri: str,
    source: str,
    output: str,
    compute: ComputeSpec,
    address: str,
    options: Options = NO_OPTIONS,
    suffix: str = "",
) -> PredictionSummary:
    """Predict on the cluster, which reaches input and output by the same paths."""
    words = [model_uri, *(str(Path(path).expanduser().absolute()) for path in (source, output)), "--json"]
    words += ["--num-workers", str(compute.max_workers), "--threads", str(compute.threads_per_worker)]
    words += ["--gpu"] if compute.use_gpu else []
    words += [] if options.memory_gb is None else ["--memory", f"{options.memory_gb:g}"]
    words += [f"--{name}" for name in ("probabilities", "uncertainty") if getattr(options, name)]
    words += ["--format", suffix.lstrip(".")] if suffix else []
    request = JobRequest(
        name=f"predict-{digest_of(words)[:12]}",
        entrypoint=f"python -m flows.cli predict {shlex.join(words)}",
        metadata={PREDICTION_TAG: model_uri},
        variables={},
    )
    client = connect(address)
    with packed(None) as folder:
        job_id, _ = ensure_job(client, request, folder)
    relay = Relay()
    info = follow(client, job_id, relay)
    if relay.result is not None:  # also where some inputs failed, which it names
        return PredictionSummary.model_validate(relay.result)
    require_success(info)
    raise RuntimeError(f"job {job_id} ended without a result")
