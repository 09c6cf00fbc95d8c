"""What can be asked of a store about many instances at once, and what it returns of each."""

from __future__ import annotations

import msgspec


class EntityRow(msgspec.Struct, frozen=True, kw_only=True):
    """What a list of entities shows of one. `state` is None also when it was not asked for."""

    instance_id: str
    created_at: int
    updated_at: int
    status: str
    version: str | None
    has_state: bool
    state: str | None
    lock: str | None
    parked: str | None
    messages: int
    """How many inbox rows wait for it."""
    timers: int
    """How many timers it has."""


class InstanceConditions(msgspec.Struct, frozen=True, kw_only=True):
    """What must hold for the orchestrations that a query finds; None and what is empty ask for nothing.

    Times are inclusive. `tags` are what it must have; `custom_status` is compared as the text that it is. What has a
    record that is no JSON, or a status that there is not, counts as parked: nobody can run it.
    """

    prefix: str = ""
    name: str | None = None
    names_excluded: tuple[str, ...] = ()
    statuses: tuple[str, ...] = ()
    created_from: int | None = None
    created_until: int | None = None
    updated_from: int | None = None
    updated_until: int | None = None
    parent_instance_id: str | None = None
    tags: dict[str, str] = {}
    custom_status: str | None = None
    parked: bool | None = None


class EndedInstance(msgspec.Struct, frozen=True):
    """What identifies an orchestration that has ended, and what is stored of it."""

    updated_at: int
    instance_id: str
    revision: int
    execution_id: str
    episodes: int
