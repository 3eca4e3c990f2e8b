"""The decision on a candidate: the champion measured on its data, the gate asked, and what it rests on written down."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from data_pipelines.errors import DataError, InputError, WeightsError
from data_pipelines.shards.index import write_table
from flows.config.pipeline import PipelineConfig
from flows.registry.candidate import Candidate
from flows.registry.champion import Champion, Compared
from flows.registry.comparison_page import comparison_page
from flows.registry.gate import CHAMPION, Incomparable, decide_alias
from flows.registry.models import GATE_TAG, find_incumbent, promote, promotion_lock
from flows.stages.attempt import Attempt

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion as MlflowVersion

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Decision:
    """Decision of the gate on a new version."""

    alias: str
    reason: str
    champion: str | None
    """Version that it was compared with; None where there was no champion, or it is not known."""

    @property
    def text(self) -> str:
        """The decision as the tag and the card of the version state it."""
        return f"{self.alias}: {self.reason}"


def decision_of(version: MlflowVersion) -> Decision | None:
    """Read the decision that an earlier attempt wrote down; None where there is none."""
    alias, separator, reason = version.tags.get(GATE_TAG, "").partition(": ")
    return Decision(alias, reason, champion=None) if separator else None


def ask_gate(
    client: MlflowClient, config: PipelineConfig, candidate: Candidate, attempt: Attempt, version: str | None
) -> Decision:
    """Compare with the champion, where there is one, and write what the decision rests on.

    ``version`` is the candidate's own, where an earlier attempt created it.
    """
    name, metrics = config.registry.name, candidate.evaluation.figures.metrics
    found = find_incumbent(client, name, version)
    if found is None:
        return Decision(*decide_alias(metrics, None, config.registry, candidate.default_metric), champion=None)
    champion = Champion.of(found)
    compared = _compare(candidate, champion, config.registry.compare_metric or candidate.default_metric)
    alias, reason = decide_alias(metrics, compared.outcome, config.registry, candidate.default_metric)
    attempt.write("comparison", "comparison.html", comparison_page(name, champion, compared, alias, reason).encode())
    if compared.rows is not None:
        write_table(attempt.uri("comparison.parquet"), compared.rows)
        attempt.add("comparison_rows", attempt.uri("comparison.parquet"))
    return Decision(alias, reason, champion.version)


def assign_alias(
    client: MlflowClient,
    config: PipelineConfig,
    candidate: Candidate,
    attempt: Attempt,
    version: str,
    decision: Decision,
) -> Decision:
    """Set the alias of a version. Where another was promoted since, compare with that one first."""
    name = config.registry.name
    while True:
        with promotion_lock(client.tracking_uri, name):
            champion = find_incumbent(client, name, version)
            if (None if champion is None else str(champion.version)) == decision.champion:
                _set_alias(client, name, version, decision.alias)
                return decision
        logger.info("register: another version of %s became champion meanwhile: comparing with it", name)
        decision = ask_gate(client, config, candidate, attempt, version)


def _set_alias(client: MlflowClient, name: str, version: str, alias: str) -> None:
    if alias == CHAMPION:
        promote(client, name, version)
    else:
        client.set_registered_model_alias(name, alias, version)


def _compare(candidate: Candidate, champion: Champion, metric: str) -> Compared:
    logger.info("register: comparing with the champion, version %s of %s", champion.version, champion.name)
    try:
        return candidate.compare(champion, metric)
    except (
        DataError,
        InputError,
        WeightsError,
    ) as error:  # any other mistake ends the stage: it says nothing of the model
        return Compared(Incomparable(f"version {champion.version}: {error}"))
