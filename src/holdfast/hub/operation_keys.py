"""The idempotency keys that entities remember: an operation whose key is known does not run again."""

from __future__ import annotations

import itertools

from holdfast.hub.instance import Instance, OperationKey
from holdfast.hub.transition import OperationAnswered, Transition
from holdfast.model.history import EntityOperationCalled, EntityOperationSignaled
from holdfast.model.limits import Limits
from holdfast.model.messages import Message


def key_of(message: Message) -> str | None:
    """Return the idempotency key of an operation that has just arrived; a scheduled one arrives but once."""
    event = message.event
    if isinstance(event, (EntityOperationCalled, EntityOperationSignaled)) and message.timer is None:
        return event.key
    return None


def answer_repetition(transition: Transition, instance: Instance, message: Message, key: str) -> None:
    """Drop an operation whose key is known; if somebody waits for its answer, and there is one, give it."""
    transition.touch(instance)
    transition.consume(instance, (message,))
    known = instance.operation_keys[key]
    if isinstance(message.event, EntityOperationCalled) and known is not None and known.answer is not None:
        transition.outputs.append(OperationAnswered(instance.instance_id, message.event.request_id, known.answer))


def remember_key(transition: Transition, instance: Instance, key: OperationKey) -> None:
    """Keep a key, with what came of its operation if that has run."""
    changes = transition.change_keys()
    if instance.remember(key) is not None:  # it was kept since its signal was scheduled, without an answer
        changes.removed.append(key.key)
    changes.added.append(key)


def forget_oldest_keys(transition: Transition, instance: Instance, limits: Limits) -> None:
    """Forget what has been answered for longest, if there are more keys than an entity remembers."""
    excess = len(instance.operation_keys) - limits.entity_keys_max
    if excess <= 0:
        return
    changes = transition.change_keys()
    added = {key.operation_key for key in changes.added}
    answered = (key for key in instance.operation_keys.values() if key is not None and key.answer is not None)
    oldest = list(itertools.islice(answered, excess))
    for key in oldest:
        instance.forget(key)
    # This very transition may have more of them than are remembered.
    changes.removed.extend(key.key for key in oldest if key.operation_key not in added)
    changes.added[:] = [key for key in changes.added if key.operation_key in instance.operation_keys]
