"""Who may let run again what is there already: whoever might have started it."""

from __future__ import annotations

from holdfast.client.client import Client, hub_of
from holdfast.client.port import TaskHub
from holdfast.http.errors import NotAllowedError
from holdfast.http.keys import Caller
from holdfast.http.payload import BASE_PATH
from holdfast.http.scopes import scope_of
from holdfast.model.access import AccessScope


def scope_to_start(name: str) -> AccessScope:
    """Return what a key must allow to start an orchestrator, by whatever way: as by the orchestrator's own path."""
    return scope_of("POST", f"{BASE_PATH}/orchestrators/{name}")


async def scope_to_repeat(hub: TaskHub, instance_id: str) -> AccessScope:
    """Return the same for what an instance runs; what is not there is refused by whatever looks for it next."""
    found = await hub.get_state(instance_id)
    return "read" if found is None else scope_to_start(found.name)


async def check_may_repeat(client: Client, caller: Caller, instance_id: str) -> None:
    """Refuse a caller that might not have started what an instance runs.

    Raises:
        NotAllowedError: then.
    """
    needed = await scope_to_repeat(hub_of(client), instance_id)
    if not caller.may(needed):
        raise NotAllowedError(caller.name, needed)
