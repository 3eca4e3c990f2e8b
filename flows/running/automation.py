"""The Prefect server's rule that a run without heartbeats becomes Crashed: its process died.

It is made by ``make stack``, at the first run against a server, and by ``python -m flows.running.schedule``. It
concerns runs of this project alone, which carry its tag: heartbeats of other flows may be longer than its patience.
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prefect.automations import Automation

logger = logging.getLogger(__name__)

NAME = "unetflow: crash runs whose process died"
TAG = "unetflow"
"""Tag of every run and deployment of this project."""


def ensure_automation() -> None:
    """Create the automation, or update one that an earlier version made."""
    wanted = build_automation()
    found = _read()
    if found is None:
        wanted.create()
    elif found.trigger.model_dump(include=_COMPARED) != wanted.trigger.model_dump(include=_COMPARED):
        found.model_copy(update={"trigger": wanted.trigger, "actions": wanted.actions}).update()


def try_automation() -> None:
    """Create the automation where there is a server that outlives this process; a failure is logged."""
    if not os.environ.get("PREFECT_API_URL"):
        return
    try:
        ensure_automation()
    except Exception as error:  # no permission, or the server blinked: the run is what counts
        logger.warning(
            "a run whose process dies will stay Running: the automation could not be created (%s); "
            "try `python -m flows.running.schedule`",
            error,
        )


def build_automation() -> Automation:
    """Build the automation: after a heartbeat, another one or an end is expected within the patience."""
    import flows.running.prefect_settings as settings  # isort: skip - before Prefect
    from datetime import timedelta

    from prefect.automations import Automation
    from prefect.client.schemas.objects import StateType
    from prefect.events.actions import ChangeFlowRunState
    from prefect.events.schemas.automations import EventTrigger, Posture
    from prefect.events.schemas.events import ResourceSpecification

    ends = {f"prefect.flow-run.{state}" for state in ("Completed", "Failed", "Cancelled", "Crashed")}
    return Automation(
        name=NAME,
        trigger=EventTrigger(
            after={"prefect.flow-run.heartbeat"},
            expect={"prefect.flow-run.heartbeat"} | ends,
            match=ResourceSpecification({"prefect.resource.id": ["prefect.flow-run.*"]}),
            match_related=ResourceSpecification({"prefect.resource.id": [f"prefect.tag.{TAG}"]}),
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=timedelta(seconds=settings.UNRESPONSIVE_SECONDS),
        ),
        actions=[
            ChangeFlowRunState(
                state=StateType.CRASHED, name=None, force=False, message="no heartbeat: the process of this run is gone"
            )
        ],
    )


_COMPARED = {"within", "match_related", "expect"}
"""Fields of the trigger by which an automation of an earlier version is told apart."""


def _read() -> Automation | None:
    from prefect.automations import Automation

    try:
        found: Any = Automation.read(name=NAME)  # typed as perhaps a coroutine: a sync caller gets the automation
    except ValueError:
        found = None  # none of this name
    automation: Automation | None = found
    return automation
