"""The decision on a candidate: the champion measured on its data, the gate asked, and what it rests on written down."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from data_pipelines.errors import UserError
from data_pipelines.shards.index import write_table
from flows.config.pipeline import PipelineConfig
from flows.registry.candidate import Candidate
from flows.registry.champion import Champion, Compared
from flows.registry.comparison_page import comparison_page
from flows.registry.gate import Incomparable, decide_alias
from flows.registry.models import find_champion
from flows.stages.attempt import Attempt

if TYPE_CHECKING:
    from mlflow import MlflowClient

logger = logging.getLogger(__name__)


def ask_gate(client: MlflowClient, config: PipelineConfig, candidate: Candidate, attempt: Attempt) -> tuple[str, str]:
    """Compare with the champion, where there is one; return (alias, reason) and write what the decision rests on."""
    name, metrics = config.registry.name, candidate.evaluation.figures.metrics
    found = find_champion(client, name)
    if found is None:
        return decide_alias(metrics, None, config.registry, candidate.default_metric)
    champion = Champion.of(found)
    compared = _compare(candidate, champion)
    alias, reason = decide_alias(metrics, compared.outcome, config.registry, candidate.default_metric)
    attempt.write("comparison", "comparison.html", comparison_page(name, champion, compared, alias, reason).encode())
    if compared.rows is not None:
        write_table(attempt.uri("comparison.parquet"), compared.rows)
        attempt.add("comparison_rows", attempt.uri("comparison.parquet"))
    return alias, reason


def _compare(candidate: Candidate, champion: Champion) -> Compared:
    logger.info("register: comparing with the champion, version %s of %s", champion.version, champion.name)
    try:
        return candidate.compare(champion)
    except UserError as error:
        return Compared(Incomparable(f"version {champion.version}: {error}"))
