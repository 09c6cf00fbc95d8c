"""The task hub as clients see it at one host of several: what another host has is asked there.

Every host answers for the instances that it owns. What only reads, it reads from the store, whoever owns it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import timedelta
from types import MappingProxyType
from typing import Any, Final, TypeVar

import msgspec

from holdfast.client import protocol
from holdfast.client.arguments import Arguments, CleanEntities, PurgeInstances
from holdfast.client.client import Client
from holdfast.client.exchange import Answer
from holdfast.client.origins import random_id
from holdfast.client.protocol import METHODS, Method, Refusal
from holdfast.client.remote import NOT_YET, NotYet, RemoteTaskHub
from holdfast.client.wire_errors import to_wire
from holdfast.engine.engine import Engine
from holdfast.engine.fleet_mail import FleetMail
from holdfast.engine.lending import Lending
from holdfast.engine.task_hub import LocalTaskHub
from holdfast.errors import (
    CommitFailedError,
    HoldfastError,
    HostStoppedError,
    InstanceElsewhereError,
    InvalidInputError,
    WaitTimeoutError,
)
from holdfast.model.converter import DataConverter
from holdfast.model.ids import partition_of
from holdfast.model.requests import InstanceFilter, OperationRequest, StartRequest
from holdfast.model.status import EntitiesRemoved, InstancesPurged
from holdfast.registry.registry import ACTIVITY
from holdfast.storage.mail import Mail, NewRequest, RequestRow

A = TypeVar("A", bound=Arguments)
R = TypeVar("R")

_ATTEMPTS_MAX: Final = 12
"""With the pauses between them, more than the two leases that a takeover may need."""
_NEW_IDS_MAX: Final = 500
_FINISHES_IN_S: Final = 5.0
_OK, _NOT_YET, _REFUSED = 200, 202, 500

_OWNED: Final[Mapping[str, str]] = MappingProxyType(
    {
        protocol.SEND.name: "instance_id",
        protocol.QUERY.name: "instance_id",
        protocol.UPDATE.name: "instance_id",
        protocol.REWIND.name: "instance_id",
        protocol.FORK.name: "new_instance_id",
        protocol.BREAK_LOCK.name: "instance_id",
        protocol.PURGE.name: "instance_id",
        protocol.WAIT_UNTIL_STOPPED.name: "instance_id",
        protocol.START.name: "request.instance_id",
        protocol.CALL_ENTITY.name: "request.instance_id",
    }
)
"""The methods that only the owner of an instance can do, and where its id is. The others can be done by any host."""


def owned_by(method: Method[A, R], arguments: A) -> str | None:
    """Return the instance whose owner is to do this, None if any host can."""
    path = _OWNED.get(method.name)
    if path is None:
        return None
    found: Any = arguments
    for name in path.split("."):
        found = getattr(found, name)
    assert isinstance(found, str), "it is an id"
    return found


class FleetTaskHub(RemoteTaskHub):
    """Does what it can here, and asks the other hosts by mail."""

    def __init__(self, engine: Engine, local: LocalTaskHub, mail: Mail) -> None:
        super().__init__(_NoWay(), "the fleet", engine.new_id, attempts_max=_ATTEMPTS_MAX, sleep=self._pause)
        self._engine = engine
        self._local = local
        self._mail = mail
        self._fleet_mail = FleetMail(mail, self._serve, engine.config.poll_s, engine.membership.is_alone)
        functions = {*engine.registry.functions(), *(ACTIVITY + each.casefold() for each in engine.builtins.names())}
        membership = engine.membership
        lending = Lending(
            mail,
            engine.runner,
            engine.answers,
            engine.config,
            functions,
            lambda: membership.node,
            membership.unserved,
        )
        membership.join(mail, self._fleet_mail, lending)

    def new_id(self) -> str:
        """Return an id that nothing else has, of an instance that this host owns: so nobody else need be asked."""
        made = self._engine.new_id()
        for _ in range(_NEW_IDS_MAX):
            if not self._engine.is_ready or self._engine.node.partitions.have(made):
                break
            made = self._engine.new_id()
        return made

    async def start_orchestration(self, request: StartRequest) -> None:
        await self._engine.membership.settled_in()
        if request.is_new_id and self._engine.is_ready:
            with contextlib.suppress(InstanceElsewhereError):  # then its owner is asked, as for any other
                await self._local.start_orchestration(request)
                return
        await super().start_orchestration(request)

    async def signal_entities(self, requests: Sequence[OperationRequest]) -> None:
        await self._engine.membership.settled_in()
        await self._local.signal_entities(requests)

    async def clean_entities(
        self, idle_for: timedelta, *, remove_empty: bool, release_orphaned: bool
    ) -> EntitiesRemoved:
        arguments = CleanEntities(idle_for=idle_for, remove_empty=remove_empty, release_orphaned=release_orphaned)
        found = await self._everywhere(protocol.CLEAN_ENTITIES, arguments)
        return EntitiesRemoved(
            empty_entities_removed=sum(each.empty_entities_removed for each in found),
            orphaned_locks_released=sum(each.orphaned_locks_released for each in found),
        )

    async def purge_instances(self, wanted: InstanceFilter, after: str, limit: int) -> InstancesPurged:
        arguments = PurgeInstances(wanted=wanted, after=after, limit=limit)
        found = await self._everywhere(protocol.PURGE_INSTANCES, arguments)
        ends = [each.next_after for each in found if each.next_after is not None]
        return InstancesPurged(
            purged=sum(each.purged for each in found), next_after=min(ends, key=_page_end, default=None)
        )

    def watch(self, instance_id: str) -> AbstractContextManager[asyncio.Event]:
        """Return what holds an event that is set whenever something of an instance may have changed in the store."""
        return self._local.watch(instance_id)

    # Where it is done

    async def _once(self, method: Method[A, R], arguments: A, wait_s: float | None) -> R | NotYet:
        instance_id = owned_by(method, arguments)
        if instance_id is None:
            return await self._here(method, arguments)
        await self._engine.membership.settled_in()
        if self._engine.node.partitions.have(instance_id):
            return await self._here(method, arguments)
        return await super()._once(method, arguments, wait_s)

    async def _here(self, method: Method[A, R], arguments: A) -> R | NotYet:
        try:
            return await method.call(self._local, arguments, self._engine.config.limits)
        except WaitTimeoutError:
            if method.waits:
                return NOT_YET
            raise

    async def _post(self, method: Method[A, R], arguments: A, body: bytes, wait_s: float | None) -> Answer | None:
        instance_id = owned_by(method, arguments)
        assert instance_id is not None, "what any host can do is done here"
        partition = partition_of(instance_id, self._engine.node.partitions.count)
        return await self._fleet_mail.ask(NewRequest(partition, method.name, body.decode()), wait_s)

    async def _everywhere(self, method: Method[A, R], arguments: A) -> list[R]:
        """Let each host do something to what it owns; return what each says."""
        await self._engine.membership.settled_in()
        own = await method.call(self._local, arguments, self._engine.config.limits)
        body = msgspec.json.encode(arguments).decode()
        others = [
            self._fleet_mail.ask(NewRequest(partition, method.name, body), None)
            for partition in await self._mail.other_hosts()
        ]
        found = [own]
        for answer in await asyncio.gather(*others):
            assert answer is not None, "there was no wait"
            if answer.status != _OK:
                raise self._refusal(answer)
            found.append(method.decode_result(answer.body))
        return found

    async def _pause(self, seconds: float) -> None:
        if self._engine.membership.is_leaving:
            raise HostStoppedError("The host is stopping; nothing was stored.")
        await asyncio.sleep(seconds)

    # What others ask

    async def _serve(self, request: RequestRow) -> tuple[int, str]:
        """Do what another host asks for, for a client of its own."""
        method = METHODS.get(request.method)
        try:
            if method is None:
                raise InvalidInputError(f"A hub has no method {request.method[:60]!r}.")
            return await self._done(method, request)
        except (InstanceElsewhereError, HostStoppedError):
            raise
        except WaitTimeoutError as error:
            return (_NOT_YET, "") if method is not None and method.waits else _refused(error)
        except HoldfastError as error:
            return _refused(error)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            return _refused(InvalidInputError(f"The arguments of {request.method} cannot be read: {error}."))

    async def _done(self, method: Method[Any, Any], request: RequestRow) -> tuple[int, str]:
        arguments = method.decode_arguments(request.arguments.encode())
        if request.was_begun and not arguments.is_repeatable:
            raise CommitFailedError(
                "The host that was asked is gone: the request may have been done, or not. Look at the status first.",
                outcome_unknown=True,
            )
        instance_id = owned_by(method, arguments)
        await self._engine.membership.settled_in()
        if instance_id is not None:
            self._engine.node.partitions.check(instance_id)
            await self._engine.node.arrivals.caught_up()  # what its client has sent before it comes before it
        doing = method.call(self._local, arguments, self._engine.config.limits)
        result = await (doing if arguments.is_repeatable else _finished(doing))
        return _OK, msgspec.json.encode(result).decode()


class _NoWay:
    """There are no addresses in a fleet: requests go to whoever owns a partition."""

    async def post(self, path: str, body: bytes, wait_s: float | None) -> Answer | None:
        raise AssertionError(f"{path} is sent by mail")


async def _finished(doing: Awaitable[R]) -> R:
    """Let what was begun come to its end, also when this host stops: another one must not do it a second time."""
    job = asyncio.ensure_future(doing)
    try:
        return await asyncio.shield(job)
    except asyncio.CancelledError:
        if not (await asyncio.wait({job}, timeout=_FINISHES_IN_S))[0]:
            job.cancel()
            raise CommitFailedError(
                "The host that was asked has stopped: the request was done, or was not. Look at the status first.",
                outcome_unknown=True,
            ) from None
        return job.result()


def _refused(error: HoldfastError) -> tuple[int, str]:
    return _REFUSED, msgspec.json.encode(Refusal(to_wire(error))).decode()


def _page_end(next_after: str) -> tuple[int, str]:
    updated_at, _, instance_id = next_after.partition("/")
    return int(updated_at), instance_id


def task_hub(engine: Engine) -> LocalTaskHub | FleetTaskHub:
    """Return the task hub of an engine, which starts after that."""
    local, mail = LocalTaskHub(engine), engine.store.mail
    return local if mail is None else FleetTaskHub(engine, local, mail)


def client_of(engine: Engine, converter: DataConverter) -> Client:
    """Return the client of the host of an engine, which starts after that."""
    hub = task_hub(engine)
    new_id = hub.new_id if isinstance(hub, FleetTaskHub) else random_id
    return Client(hub, converter, engine.config.limits, new_id=new_id)
