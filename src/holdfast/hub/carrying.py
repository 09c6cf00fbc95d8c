"""Work that goes on over `continue_as_new`: the next execution waits for it under numbers of its own."""

from __future__ import annotations

from typing import Final

import msgspec

from holdfast.hub.asking import ask_child_again
from holdfast.hub.instance import Instance, OpenChild, ScheduledActivity
from holdfast.hub.transition import AdoptActivity, Transition
from holdfast.model.actions import Carried, TaskAnswer
from holdfast.model.history import CarriedTask

_FIRST_NUMBER: Final = -10


class _TakenOut(msgspec.Struct, frozen=True):
    task: CarriedTask
    asked_as: int
    activity: ScheduledActivity | None
    child: OpenChild | None
    answer: TaskAnswer | None


class Carrying:
    """What an execution hands on, between being taken out of it and being put into the next one."""

    def __init__(self, transition: Transition, instance: Instance, carried: tuple[Carried, ...]) -> None:
        self._taken_out = [
            _take_out(transition, instance, each, _FIRST_NUMBER - index) for index, each in enumerate(carried)
        ]

    @property
    def tasks(self) -> tuple[CarriedTask, ...]:
        return tuple(each.task for each in self._taken_out)

    def put_in(self, transition: Transition, instance: Instance) -> None:
        """Give the work to the execution that an instance has now; behind the message that starts it."""
        for each in self._taken_out:
            number = each.task.number
            if each.answer is not None:
                if each.child is not None:
                    transition.add_child(instance, number, each.child.child_instance_id)
                answer = msgspec.structs.replace(each.answer, task_scheduled_id=number)
                transition.send(instance.instance_id, answer, instance.execution_id)
            elif each.activity is not None:
                _adopt(transition, instance, each.activity, number)
            elif each.child is not None:
                child_id = each.child.child_instance_id
                transition.add_child(instance, number, child_id)
                ask_child_again(transition, instance, number, child_id, asked_as=each.asked_as, is_carried=True)


def _take_out(transition: Transition, instance: Instance, carried: Carried, number: int) -> _TakenOut:
    asked_as, answer = carried.number, carried.answer
    activity, child = instance.activities.get(asked_as), instance.children.get(asked_as)
    for message in list(instance.inbox):
        event = message.event
        if isinstance(event, TaskAnswer) and event.task_scheduled_id == asked_as:
            instance.inbox.remove(message)
            transition.consume(instance, (message,))
            answer = event
    if asked_as in instance.activities:
        transition.remove_activity(instance, asked_as)
    if asked_as in instance.children:
        transition.remove_child(instance, asked_as)
    return _TakenOut(CarriedTask(carried.name, number), asked_as, activity, child, answer)


def _adopt(transition: Transition, instance: Instance, activity: ScheduledActivity, number: int) -> None:
    adopted = msgspec.structs.replace(
        activity,
        execution_id=instance.execution_id,
        sequence=number,
        call_id=activity.call_id or f"{activity.execution_id}:{activity.sequence}",
    )
    instance.activities[number] = adopted
    transition.activities_scheduled.append(adopted)
    transition.outputs.append(AdoptActivity(activity.key, adopted))
