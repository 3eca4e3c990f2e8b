"""Dead runs are told from living ones: patience is several heartbeats, wherever a run starts."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import timedelta
from typing import Any

import pytest
import yaml

from flows.installation import source_root
from flows.running.prefect_settings import HEARTBEAT, HEARTBEAT_SECONDS, MAX_HEARTBEAT_SECONDS, UNRESPONSIVE_SECONDS

SHOW = """
import flows.running.prefect_flow
from prefect.settings import get_current_settings
print(get_current_settings().flows.heartbeat_frequency)
"""


def test_patience_is_several_heartbeats() -> None:
    from flows.running.automation import build_automation

    assert 30 <= HEARTBEAT_SECONDS <= MAX_HEARTBEAT_SECONDS, "Prefect's minimum is 30"
    assert UNRESPONSIVE_SECONDS >= 3 * MAX_HEARTBEAT_SECONDS
    trigger: Any = build_automation().trigger
    assert trigger.within == timedelta(seconds=UNRESPONSIVE_SECONDS)


@pytest.mark.parametrize(("given", "expected"), [(None, "30"), ("60", "60"), ("180", "30")])
def test_a_heartbeat_that_is_too_long_is_shortened(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, given: str | None, expected: str
) -> None:
    from flows.running import prefect_settings

    if given is None:
        monkeypatch.delenv(HEARTBEAT, raising=False)
    else:
        monkeypatch.setenv(HEARTBEAT, given)
    prefect_settings._set_heartbeat()
    assert os.environ[HEARTBEAT] == expected
    assert ("is too long" in caplog.text) == (given == "180")


def test_flows_read_the_heartbeat(isolated_home: object) -> None:
    """In a process of its own: Prefect reads its settings when it is first imported."""
    done = subprocess.run([sys.executable, "-c", SHOW], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(HEARTBEAT_SECONDS)]


def test_deployments_carry_the_heartbeat_and_the_tag() -> None:
    deployed = yaml.safe_load((source_root() / "infra" / "prefect.yaml").read_text())
    for deployment in deployed["deployments"]:
        assert int(deployment["work_pool"]["job_variables"]["env"][HEARTBEAT]) == HEARTBEAT_SECONDS
        assert "unetflow" in deployment["tags"]


@pytest.mark.parametrize(("tag", "covered"), [("unetflow", True), ("theirs", False)])
def test_runs_of_other_projects_are_left_alone(tag: str, covered: bool) -> None:
    """Their heartbeats may come every 180 s, which is Prefect's default."""
    from prefect.server.events.schemas.automations import EventTrigger
    from prefect.server.events.schemas.events import ReceivedEvent

    from flows.running.automation import build_automation

    built: Any = build_automation().trigger
    trigger = EventTrigger.model_validate(built.model_dump(mode="json"))
    event = ReceivedEvent.model_validate(
        {
            "occurred": "2026-01-01T00:00:00Z",
            "event": "prefect.flow-run.heartbeat",
            "resource": {"prefect.resource.id": "prefect.flow-run.1"},
            "related": [
                {"prefect.resource.id": "prefect.flow.1", "prefect.resource.role": "flow"},
                {"prefect.resource.id": f"prefect.tag.{tag}", "prefect.resource.role": "tag"},
            ],
            "id": "00000000-0000-0000-0000-000000000001",
        }
    )
    assert trigger.covers(event) is covered
