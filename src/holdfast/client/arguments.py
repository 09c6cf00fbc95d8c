"""The arguments of the methods of the port, as JSON objects.

An argument that is not known is refused: a host that does not know it cannot do what it asks for.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final

import msgspec

from holdfast.client.entities import PAGE_ENTITIES_MAX
from holdfast.client.origins import utc_now
from holdfast.client.wire_requests import Sendable, WireOperation, WireStart, check_json, checked_event
from holdfast.errors import InvalidInputError
from holdfast.model.history import EventRaised, UpdateRequested
from holdfast.model.ids import EntityId, is_entity, validate_instance_id
from holdfast.model.limits import Limits
from holdfast.model.refs import validate_name
from holdfast.model.requests import (
    EntityFilter,
    InstanceFilter,
    OperationRequest,
    check_if_execution,
    check_instant,
    check_key,
    check_tags,
)

_EPISODES_MAX: Final = 10**9
"""More than any history has, and less than what a store could not count."""


class Arguments(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What every method's arguments have."""

    @property
    def is_read(self) -> bool:
        """Whether nothing is changed."""
        return False

    @property
    def is_repeatable(self) -> bool:
        """Whether asking twice does not do it twice, so that it can be asked again when the answer is lost."""
        return self.is_read


class Waiting(Arguments, frozen=True, kw_only=True):
    """The arguments of a method whose answer may be long in coming."""

    timeout: timedelta | None = None

    @property
    def is_repeatable(self) -> bool:
        return True


class OfInstance(Arguments, frozen=True, kw_only=True):
    """Reads something of one instance."""

    instance_id: str

    @property
    def is_read(self) -> bool:
        return True


class ExportHistory(OfInstance, frozen=True, kw_only=True):
    first: int = 0
    limit: int | None = None

    def checked(self) -> ExportHistory:
        if not 0 <= self.first <= _EPISODES_MAX:
            raise InvalidInputError(f"first={self.first!r} must be a number from 0 to {_EPISODES_MAX}.")
        if self.limit is not None and not 1 <= self.limit <= _EPISODES_MAX:
            raise InvalidInputError(f"limit={self.limit!r} must be a number from 1 to {_EPISODES_MAX}.")
        return self


class StartOrchestration(Arguments, frozen=True, kw_only=True):
    request: WireStart

    @property
    def is_repeatable(self) -> bool:
        return self.request.request_key is not None and not self.request.is_restart


class Send(Arguments, frozen=True, kw_only=True):
    instance_id: str
    event: Sendable

    @property
    def is_repeatable(self) -> bool:
        return isinstance(self.event, EventRaised) and self.event.key is not None

    def checked(self, limits: Limits) -> Send:
        return Send(instance_id=self.instance_id, event=checked_event(self.event, limits))


class Query(OfInstance, frozen=True, kw_only=True):
    name: str
    input: str | None = None

    def checked(self, limits: Limits) -> Query:
        validate_name(self.name)
        check_json("input", self.input, limits)
        return self


class Update(Waiting, frozen=True, kw_only=True):
    """It is known by its `update_id`, and so can be asked for again."""

    instance_id: str
    request: UpdateRequested

    def checked(self, limits: Limits) -> Update:
        check_key("update_id", self.request.update_id)
        validate_name(self.request.name)
        check_json("input", self.request.input, limits)
        return msgspec.structs.replace(self, request=msgspec.structs.replace(self.request, timestamp=utc_now()))


class Rewind(Arguments, frozen=True, kw_only=True):
    instance_id: str
    reason: str | None = None

    def checked(self, limits: Limits) -> Rewind:
        check_json("reason", self.reason, limits)
        return self


class Fork(Arguments, frozen=True, kw_only=True):
    instance_id: str
    new_instance_id: str
    episodes: int | None = None


class SignalEntities(Arguments, frozen=True, kw_only=True):
    requests: tuple[WireOperation, ...]

    @property
    def is_repeatable(self) -> bool:
        return all(request.key is not None for request in self.requests)

    def checked(self, limits: Limits) -> list[OperationRequest]:
        if not 1 <= len(self.requests) <= limits.signals_max:
            raise InvalidInputError(
                f"There are {len(self.requests)} signals; one request takes at least one, at most {limits.signals_max}."
            )
        return [request.checked(limits) for request in self.requests]


class CallEntity(Waiting, frozen=True, kw_only=True):
    """It has a key, of its caller or of its transport, by which it is known when it is asked for again."""

    request: WireOperation

    def checked(self, limits: Limits) -> OperationRequest:
        if self.request.key is None:
            raise InvalidInputError("A call from afar needs a key: it is asked for again until there is an answer.")
        return self.request.checked(limits)


class GetEntity(OfInstance, frozen=True, kw_only=True):
    def checked(self) -> GetEntity:
        return GetEntity(instance_id=EntityId.parse(self.instance_id).instance_id)


class BreakLock(Arguments, frozen=True, kw_only=True):
    instance_id: str

    def checked(self) -> BreakLock:
        return BreakLock(instance_id=EntityId.parse(self.instance_id).instance_id)


class ListEntities(Arguments, frozen=True, kw_only=True):
    wanted: EntityFilter
    after: str
    limit: int

    @property
    def is_read(self) -> bool:
        return True

    def checked(self) -> ListEntities:
        if not self.wanted.prefix.startswith("@"):
            raise InvalidInputError(f"prefix={self.wanted.prefix[:60]!r} must begin with '@', as entities do.")
        check_page(self.limit)
        check_instant("updated_from", self.wanted.updated_from)
        check_instant("updated_until", self.wanted.updated_until)
        return self


class CleanEntities(Arguments, frozen=True, kw_only=True):
    idle_for: timedelta
    remove_empty: bool
    release_orphaned: bool

    def checked(self) -> CleanEntities:
        if self.idle_for < timedelta(0):
            raise InvalidInputError(f"idle_for={self.idle_for!r} must be a timedelta of zero or more.")
        return self


class OfInstances(Arguments, frozen=True, kw_only=True):
    """About all orchestrations that a filter finds."""

    wanted: InstanceFilter

    def checked_filter(self, limits: Limits) -> InstanceFilter:
        wanted = self.wanted
        for bound in ("created_from", "created_until", "updated_from", "updated_until"):
            check_instant(bound, getattr(wanted, bound))
        if not wanted.prefix.isprintable() or is_entity(wanted.prefix):
            raise InvalidInputError(f"prefix={wanted.prefix[:80]!r} is not how an instance id can begin.")
        check_tags(wanted.tags, limits.tags_max)
        check_json("custom_status", wanted.custom_status, limits)
        return wanted


class ListInstances(OfInstances, frozen=True, kw_only=True):
    after: str
    limit: int

    @property
    def is_read(self) -> bool:
        return True

    def checked(self, limits: Limits) -> ListInstances:
        check_page(self.limit)
        self.checked_filter(limits)
        return self


class CountInstances(OfInstances, frozen=True, kw_only=True):
    @property
    def is_read(self) -> bool:
        return True


class Purge(Arguments, frozen=True, kw_only=True):
    instance_id: str
    if_execution: str | None = None

    def checked(self) -> Purge:
        check_if_execution(self.instance_id, self.if_execution)
        if is_entity(self.instance_id):
            EntityId.parse(self.instance_id)
        else:
            validate_instance_id(self.instance_id)
        return self


class PurgeInstances(OfInstances, frozen=True, kw_only=True):
    after: str
    limit: int

    def checked(self, limits: Limits) -> PurgeInstances:
        check_page(self.limit)
        self.checked_filter(limits)
        return self


class WaitUntilStopped(Waiting, frozen=True, kw_only=True):
    instance_id: str

    @property
    def is_read(self) -> bool:
        return True


def check_page(limit: int) -> None:
    """Raise InvalidInputError for a page that is larger than any client asks for."""
    if not 1 <= limit <= PAGE_ENTITIES_MAX:
        raise InvalidInputError(f"limit={limit!r} must be a number from 1 to {PAGE_ENTITIES_MAX}.")
