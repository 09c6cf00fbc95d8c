"""Acting on what a transition lets out of the process, once it is durable."""

from __future__ import annotations

import logging

from holdfast.engine.activity_starts import ActivityStarts
from holdfast.engine.waiters import Waiters
from holdfast.hub.transition import (
    AdoptActivity,
    HistoryWarning,
    InstanceStopped,
    MessageDropped,
    OperationAnswered,
    Output,
    StartActivity,
    StateWarning,
    StopActivity,
    UpdateAnswered,
)
from holdfast.model.history import ExecutionStarted

logger = logging.getLogger("holdfast.engine")


class Outputs:
    def __init__(self, starts: ActivityStarts, waiters: Waiters) -> None:
        self._starts = starts
        self._waiters = waiters

    def act_on(self, output: Output) -> None:
        match output:
            case StartActivity():
                self._starts.start(output.activity)
            case AdoptActivity():
                self._starts.adopt(output.key, output.activity)
            case StopActivity():
                self._starts.stop(output.key)
            case InstanceStopped():
                parked = output.state.parked
                if parked is not None:
                    logger.error("Instance %r is parked: %s", output.state.instance_id, parked.error_message)
                self._waiters.stopped(output.state)
            case UpdateAnswered():
                self._waiters.answered(output.instance_id, output.event.update_id, output.event)
            case OperationAnswered():
                self._waiters.answered(output.instance_id, output.request_id, output.answer)
            case MessageDropped(instance_id=instance_id, event=ExecutionStarted()):
                logger.info("A start of instance %r had no effect: there is one of this id already.", instance_id)
            case MessageDropped():
                logger.warning(
                    "An event %r for instance %r was dropped: there is no such instance, or it has ended.",
                    output.event.name,
                    output.instance_id,
                )
            case StateWarning():
                logger.warning(
                    "The state of entity %s has %d bytes, all of which are written with each change; let several "
                    "entities share it, or keep what is large elsewhere.",
                    output.instance_id,
                    output.state_bytes,
                )
            case HistoryWarning():
                logger.warning(
                    "The history of instance %r of orchestrator %r has %d events; let it call ctx.continue_as_new() "
                    "from time to time, or split its work into sub-orchestrations.",
                    output.instance_id,
                    output.name,
                    output.history_events,
                )
