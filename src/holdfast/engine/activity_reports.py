"""What comes back from activities: outcomes, and what they report while they run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.engine.answers import Answers
from holdfast.engine.residents import Resident
from holdfast.errors import HoldfastError, InstanceElsewhereError
from holdfast.model.messages import Message
from holdfast.model.work_items import ActivityWorkItem, Outcome

if TYPE_CHECKING:
    from holdfast.engine.lending import Lending
    from holdfast.engine.node import Node


class ActivityReports:
    def __init__(self, node: Node, answers: Answers, lending: Lending | None) -> None:
        self._lending = lending
        self._node = node
        self._answers = answers
        self._refused: list[tuple[ActivityWorkItem, Outcome]] = []

    def finished(self, work_item: ActivityWorkItem, outcome: Outcome) -> None:
        """Take in the outcome of an attempt."""

        def refused(error: HoldfastError) -> None:
            if isinstance(error, InstanceElsewhereError) and self._lending is not None:
                self._lending.report(work_item, outcome)
            else:
                self._refused.append((work_item, outcome))

        def take_in() -> None:
            instance_id, loader = work_item.instance_id, self._node.loader
            resident = loader.at_hand(instance_id)
            if resident is not None:
                self._take_in(resident, work_item, outcome)
            else:
                loader.with_resident(instance_id, lambda found: self._take_in(found, work_item, outcome), refused)

        self._node.guarded(work_item.instance_id, take_in)

    def _take_in(self, resident: Resident | None, work_item: ActivityWorkItem, outcome: Outcome) -> None:
        node, key = self._node, work_item.key
        node.suspects.finished(key)
        result = None
        if resident is not None:
            result = node.hub.finish_activity(resident.instance, work_item, outcome, node.clock.now())
        if isinstance(result, Message):
            node.deliver(resident, result)
        elif resident is not None and result is not None:
            node.finish_step(resident, result)
        elif not _is_answered(resident, work_item):
            self._answers.discard(key)

    def offer_again(self) -> None:
        """Take in the outcomes that came for instances which were held back then."""
        offered, self._refused = self._refused, []
        for work_item, outcome in offered:
            self.finished(work_item, outcome)

    def progressed(self, work_item: ActivityWorkItem, progress: str) -> None:
        """Store what a running attempt reports, if its instance is in memory; else its next report will be."""
        node = self._node
        resident = node.residents.get(work_item.instance_id)
        if resident is None:
            return
        transition = node.hub.record_progress(resident.instance, work_item, progress, node.clock.now())
        if transition is not None:
            node.guarded(work_item.instance_id, lambda: node.append(transition))


def _is_answered(resident: Resident | None, work_item: ActivityWorkItem) -> bool:
    """Whether an outcome came in before, which is not stored yet: until it is, nothing of it may be forgotten."""
    if resident is None or resident.instance.execution_id != work_item.execution_id:
        return False
    return work_item.sequence in resident.instance.answered
