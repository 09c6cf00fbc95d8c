"""Critical sections, as the orchestration that holds or wants the locks is concerned.

Whatever ends the section gives every lock back in the same transition: the code, the end of the instance, being set
aside for an operator, or the end of the lease. Who goes on inside a section that is lost is told by the entities.
"""

from __future__ import annotations

import msgspec

from holdfast.hub.instance import CriticalSectionState, Instance
from holdfast.hub.transition import Transition
from holdfast.model.actions import EntityMessage
from holdfast.model.history import EntityLockRequested, EntityUnlockSent
from holdfast.model.instants import after


def track_section(transition: Transition, instance: Instance, event: EntityMessage) -> None:
    """Note that the code has asked for a section, or gives one lock of it back."""
    section = instance.section
    match event:
        case EntityLockRequested():
            instance.section = CriticalSectionState(
                event.critical_section_id, event.lock_set, event.event_id, event.lease
            )
        case EntityUnlockSent() if section is not None and section.section_id == event.critical_section_id:
            left = tuple(target for target in section.lock_set if target != event.target_instance_id)
            if left:
                instance.section = msgspec.structs.replace(section, lock_set=left)
            else:
                _end(transition, instance)
        case _:
            pass


def grant(instance: Instance) -> bool:
    """Note that all locks of a section are held now; return whether `begin_section` must follow.

    Until the step that consumes the grant is stored, its message tells the same after a crash.
    """
    section = instance.section
    assert section is not None, "a grant is for the section that is asked for"
    if section.is_granted:
        return False
    instance.section = msgspec.structs.replace(section, is_granted=True)
    return instance.parked is not None or section.lease is not None


def begin_section(transition: Transition, instance: Instance) -> None:
    """Let the lease of a section count. An instance that is parked may not hold locks: it gives them back at once."""
    section = instance.section
    assert section is not None, "it was granted"
    transition.change(instance)
    if instance.parked is not None:
        lose_locks(transition, instance)
    elif section.lease is not None:
        transition.add_timer(instance, section.number, after(transition.now, section.lease))


def is_lease(instance: Instance, timer_id: int) -> bool:
    """Whether a timer is that of the lease of the section in which an orchestration is."""
    section = instance.section
    return section is not None and section.lease is not None and section.number == timer_id


def lose_locks(transition: Transition, instance: Instance) -> None:
    """Give back the locks that a section holds, though its code has not come to its end.

    One that still waits for its locks stays in line: it is told when it gets them, and gives them back then.
    """
    section = instance.section
    if section is None or not section.is_granted or section.is_lost:
        return
    unlock_all(transition, section.section_id, section.lock_set)
    _end(transition, instance)
    instance.section = msgspec.structs.replace(section, is_lost=True)


def release_locks(transition: Transition, instance: Instance) -> None:
    """Give back what an orchestration has locked, and take back what it waits to lock."""
    section = instance.section
    if section is not None:
        unlock_all(transition, section.section_id, section.lock_set)
        _end(transition, instance)


def _end(transition: Transition, instance: Instance) -> None:
    """Forget the section, and its lease, also if that is over and waits to be acted on."""
    section, instance.section = instance.section, None
    lease = None if section is None or section.lease is None else instance.timers.get(section.number)
    if lease is not None:
        transition.remove_timer(instance, lease.sequence)
        for message in [message for message in instance.controls if message.timer == lease.key]:
            instance.controls.remove(message)


def unlock_all(transition: Transition, section_id: str, targets: tuple[str, ...]) -> None:
    """Tell entities that a section does not have, or does not want, their locks any more; that may be no news."""
    for target in targets:
        event = EntityUnlockSent(timestamp=transition.now, critical_section_id=section_id, target_instance_id=target)
        transition.send(target, event)
