"""Reservations of workers that outlive what made them: Ray frees those of an actor that died when its job ends, and no
sooner. A job of many trainings would go on with fewer and fewer CPUs."""

from __future__ import annotations

import logging

logger = logging.getLogger(__name__)


def free_reservations() -> None:
    """Free what dead actors of this job, such as the controller of a training, had reserved.

    Nothing happens where this process is not connected to Ray.
    """
    import ray
    from ray._private.state import state
    from ray._raylet import PlacementGroupID
    from ray.core.generated.gcs_pb2 import PlacementGroupTableData as Group
    from ray.util.placement_group import PlacementGroup, remove_placement_group

    if not ray.is_initialized():
        return
    job = ray.get_runtime_context().get_job_id()
    # Ray's public table of them does not say whose they are.
    table = state._connect_and_get_accessor().get_placement_group_table()
    left = [
        group
        for group in map(Group.FromString, table)
        if group.creator_actor_dead and group.creator_job_id.hex() == job
        if not group.is_detached and group.state != Group.REMOVED
    ]
    for group in left:
        remove_placement_group(PlacementGroup(PlacementGroupID(group.placement_group_id)))
    if left:
        logger.warning("freed what %d dead controllers of trainings had reserved", len(left))
