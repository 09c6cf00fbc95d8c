"""What the audit log tells of a call of the hub: on what, and what was to be done; never what was passed with it."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from holdfast.client.arguments import (
    Arguments,
    CallEntity,
    CleanEntities,
    Fork,
    PurgeInstances,
    Send,
    SignalEntities,
    StartOrchestration,
    Update,
)
from holdfast.http.audit import TEXT_CHARS_MAX


def told_of(arguments: Arguments) -> dict[str, str]:
    """Return the same words that an audit line has of a path: `instance_id`, and whatever else says what it was."""
    return dict(_told_of(arguments))


def _told_of(arguments: Arguments) -> Iterator[tuple[str, str]]:
    match arguments:
        case StartOrchestration(request=request):
            yield from (("instance_id", request.instance_id), ("function_name", request.name))
        case Send(instance_id=instance_id, event=event):
            yield from (("instance_id", instance_id), ("event", type(event).__name__))
            yield from _named("event_name", event)
        case Update(instance_id=instance_id, request=request):
            yield from (("instance_id", instance_id), ("update_name", request.name))
        case Fork(instance_id=instance_id, new_instance_id=new_instance_id):
            yield from (("instance_id", instance_id), ("new_instance_id", new_instance_id))
        case CallEntity(request=request):
            yield from (("instance_id", request.instance_id), ("operation", request.operation))
        case SignalEntities(requests=requests):
            yield from _signals([(each.instance_id, each.operation) for each in requests])
        case PurgeInstances(wanted=wanted, after=after):
            yield from (("filter", msgspec.json.encode(wanted).decode()), ("after", after))
        case CleanEntities(idle_for=idle_for, remove_empty=remove_empty, release_orphaned=release_orphaned):
            yield from (("filter", f"idle for {idle_for}"), ("remove_empty", str(remove_empty)))
            yield ("release_orphaned", str(release_orphaned))
        case _:
            yield from _of_one(arguments)


def _signals(signals: list[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    if len(signals) == 1:
        yield from (("instance_id", signals[0][0]), ("operation", signals[0][1]))
        return
    yield ("signals", str(len(signals)))
    # As many as the line takes; their number says how many there were.
    yield ("instances", " ".join(each for each, _ in signals[:TEXT_CHARS_MAX]))
    yield ("operations", " ".join(sorted({each for _, each in signals})))


def _named(word: str, thing: object) -> Iterator[tuple[str, str]]:
    name = getattr(thing, "name", None)
    if isinstance(name, str):
        yield (word, name)


def _of_one(arguments: Arguments) -> Iterator[tuple[str, str]]:
    instance_id = getattr(arguments, "instance_id", None)
    if isinstance(instance_id, str):
        yield ("instance_id", instance_id)
