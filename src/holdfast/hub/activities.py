"""Activities: what a finished attempt leads to."""

from __future__ import annotations

from datetime import datetime

import msgspec

from holdfast.hub.instance import Instance, ScheduledActivity
from holdfast.hub.transition import StartActivity, Transition
from holdfast.model.history import TaskCompleted, TaskFailed
from holdfast.model.instants import after
from holdfast.model.messages import Message
from holdfast.model.retry import next_delay
from holdfast.model.work_items import COMMITTED_ATTEMPT, ActivityWorkItem, Failed, Outcome


def open_attempt(instance: Instance, work_item: ActivityWorkItem) -> ScheduledActivity | None:
    """Return the activity that an attempt belongs to, or None if its result concerns nobody any more.

    It does not if the execution is another one, or if this attempt was given up or answered before.
    """
    activity = instance.activities.get(work_item.sequence)
    if activity is None or activity.execution_id != work_item.execution_id:
        return None
    if work_item.attempt not in (activity.attempt, COMMITTED_ATTEMPT):
        return None
    return None if work_item.sequence in instance.answered else activity


def next_attempt(activity: ScheduledActivity, failed: Failed, now: datetime) -> ScheduledActivity | None:
    """Return the activity with its next attempt planned, or None if this failure is final."""
    retry = activity.policy.retry
    if retry is None:
        return None
    seed = f"{activity.execution_id}:{activity.sequence}"
    delay = next_delay(retry, failed.details, activity.attempt, now - activity.scheduled_at, seed)
    if delay is None:
        return None
    visible_at, start_timeout = after(now, delay), activity.policy.start_timeout
    return msgspec.structs.replace(
        activity,
        attempt=activity.attempt + 1,
        visible_at=visible_at,
        start_by=None if start_timeout is None else after(visible_at, start_timeout),
        deliveries=0,
        progress=failed.progress or activity.progress,
    )


def replace_activity(transition: Transition, instance: Instance, activity: ScheduledActivity) -> None:
    """Store an activity's new attempt or count, and let it start."""
    transition.touch(instance)
    instance.activities[activity.sequence] = activity
    transition.activities_updated.append(activity)
    transition.outputs.append(StartActivity(activity))


def record_progress(transition: Transition, instance: Instance, activity: ScheduledActivity, progress: str) -> None:
    """Store what a running attempt reports, for the next attempt to read."""
    transition.touch(instance)
    updated = msgspec.structs.replace(activity, progress=progress)
    instance.activities[activity.sequence] = updated
    transition.activities_updated.append(updated)


def completion_message(activity: ScheduledActivity, outcome: Outcome, now: datetime) -> Message:
    """Return the message that tells an orchestration how its activity ended."""
    event = (
        TaskFailed(timestamp=now, task_scheduled_id=activity.sequence, failure=outcome.details)
        if isinstance(outcome, Failed)
        else TaskCompleted(timestamp=now, task_scheduled_id=activity.sequence, result=outcome.result)
    )
    return Message(activity.instance_id, event, execution_id=activity.execution_id, activity=activity.key)
