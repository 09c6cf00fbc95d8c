"""What comes back from activities: outcomes, and what they report while they run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.engine.answers import Answers
from holdfast.engine.residents import Resident
from holdfast.errors import HoldfastError, InstanceElsewhereError
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
        resident = self._node.loader.at_hand(work_item.instance_id)
        if resident is None:
            self._look_for(work_item, outcome)
        elif not self._node.is_abandoned:
            try:
                self._take_in(resident, work_item, outcome)
            except BaseException as error:
                self._node.blame(work_item.instance_id, error)

    def _look_for(self, work_item: ActivityWorkItem, outcome: Outcome) -> None:
        """Take in an outcome once its instance is in memory, or give it to whoever has that."""

        def refused(error: HoldfastError) -> None:
            if isinstance(error, InstanceElsewhereError) and self._lending is not None:
                self._lending.report(work_item, outcome)
            else:
                self._refused.append((work_item, outcome))

        def arrived(resident: Resident | None) -> None:
            self._take_in(resident, work_item, outcome)

        loader, instance_id = self._node.loader, work_item.instance_id
        self._node.guarded(instance_id, lambda: loader.with_resident(instance_id, arrived, refused))

    def _take_in(self, resident: Resident | None, work_item: ActivityWorkItem, outcome: Outcome) -> None:
        node, key = self._node, work_item.key
        node.suspects.finished(key)
        if resident is not None:
            taken_in, transition = node.hub.finish_activity(resident.instance, work_item, outcome, node.clock.now())
            if transition is not None:
                node.append(transition)
            if taken_in:
                node.make_runnable(resident)
                return
        if not _is_answered(resident, work_item):
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
