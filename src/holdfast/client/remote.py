"""A task hub elsewhere, as the port has it: asked over HTTP, and asked again where that is safe."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Final, NoReturn, Protocol, TypeVar

import msgspec

from holdfast.client import protocol
from holdfast.client.arguments import (
    Arguments,
    BreakLock,
    CallEntity,
    CleanEntities,
    CountInstances,
    ExportHistory,
    Fork,
    GetEntity,
    ListEntities,
    ListInstances,
    OfInstance,
    Purge,
    PurgeInstances,
    Query,
    Rewind,
    Send,
    SignalEntities,
    StartOrchestration,
    Update,
    Waiting,
    WaitUntilStopped,
)
from holdfast.client.exchange import Answer, AnswerLostError, NotSentError
from holdfast.client.protocol import HUB_PATH, WAIT_S_MAX, Method, Refusal
from holdfast.client.timeouts import not_answered, not_stopped, not_updated
from holdfast.client.wire_errors import from_wire
from holdfast.client.wire_requests import Sendable, WireOperation, WireStart
from holdfast.errors import (
    CommitFailedError,
    ConfigurationError,
    CorruptRecordError,
    HoldfastError,
    HostStoppedError,
    HostUnreachableError,
    InstanceNotRunningError,
    InvalidInputError,
    OverloadedError,
    PayloadError,
    PayloadTooLargeError,
    StorageError,
)
from holdfast.model.exported import ExportedHistory
from holdfast.model.history import (
    EventRaised,
    HistoryEvent,
    MessageEvent,
    OperationAnswer,
    UpdateCompleted,
    UpdateRequested,
)
from holdfast.model.ids import NewId
from holdfast.model.requests import EntityFilter, InstanceFilter, OperationRequest, StartRequest
from holdfast.model.status import (
    EntitiesRemoved,
    EntityState,
    InstancesPurged,
    LockState,
    OrchestrationState,
    OrchestrationStatus,
)

A = TypeVar("A", bound=Arguments)
W = TypeVar("W", bound=Waiting)
R = TypeVar("R")

_OK: Final = 200
_NOT_YET: Final = 202
_PAUSE_S: Final = 0.1
"""Before a request is repeated for the first time; each later pause is three times as long, up to a limit."""
_PAUSE_S_MAX: Final = 5.0


class NotYet:
    """The answer of a wait that goes on."""


NOT_YET: Final = NotYet()


class Exchange(Protocol):
    """What carries requests."""

    async def post(self, path: str, body: bytes, wait_s: float | None) -> Answer | None: ...


class RemoteTaskHub:
    """Implements the port over a protocol in which answers may be lost.

    What only reads, waits or has a key is asked again then. A start, a call and an update have a key of this hub if
    their caller gave none, so that they can be.

    Args:
        name: the URL of the host, for texts.
        attempts_max: how often one request is sent.
    """

    def __init__(
        self,
        exchange: Exchange,
        name: str,
        new_key: NewId,
        *,
        attempts_max: int,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._exchange = exchange
        self._name = name
        self._new_key = new_key
        self._attempts_max = attempts_max
        self._sleep = sleep

    # The port

    async def start_orchestration(self, request: StartRequest) -> None:
        if request.request_key is None and not request.is_restart:
            request = msgspec.structs.replace(request, request_key=self._new_key())
        await self._ask(protocol.START, StartOrchestration(request=WireStart.of(request)))

    async def send(self, instance_id: str, event: MessageEvent) -> None:
        if not isinstance(event, Sendable):
            raise InvalidInputError(f"A client cannot send {type(event).__name__}; it is a message of the engine.")
        try:
            await self._ask(protocol.SEND, Send(instance_id=instance_id, event=event))
        except _DoneBeforeError as error:
            key = event.key if isinstance(event, EventRaised) else None
            history = await self._history_after(error, instance_id)
            if not any(isinstance(each, EventRaised) and each.key == key for each in history):
                self._unknown(error, error)

    async def query(self, instance_id: str, name: str, input: str | None) -> str:
        return await self._ask(protocol.QUERY, Query(instance_id=instance_id, name=name, input=input))

    async def update(self, instance_id: str, request: UpdateRequested, timeout: timedelta | None) -> UpdateCompleted:
        arguments = Update(instance_id=instance_id, request=request)
        try:
            answer = await self._wait(protocol.UPDATE, arguments, timeout)
        except _DoneBeforeError as error:
            for event in await self._history_after(error, instance_id):
                if isinstance(event, UpdateCompleted) and event.update_id == request.update_id:
                    return event
            raise error.refusal from None
        if isinstance(answer, NotYet):
            raise not_updated(instance_id, request.update_id, timeout)
        return answer

    async def rewind(self, instance_id: str, reason: str | None) -> None:
        await self._ask(protocol.REWIND, Rewind(instance_id=instance_id, reason=reason))

    async def fork(self, instance_id: str, new_instance_id: str, episodes: int | None) -> None:
        arguments = Fork(instance_id=instance_id, new_instance_id=new_instance_id, episodes=episodes)
        await self._ask(protocol.FORK, arguments)

    async def signal_entities(self, requests: Sequence[OperationRequest]) -> None:
        arguments = SignalEntities(requests=tuple(WireOperation.of(request) for request in requests))
        await self._ask(protocol.SIGNAL_ENTITIES, arguments)

    async def call_entity(self, request: OperationRequest, timeout: timedelta | None) -> OperationAnswer:
        keyed = request if request.key else msgspec.structs.replace(request, key=self._new_key())
        answer = await self._wait(protocol.CALL_ENTITY, CallEntity(request=WireOperation.of(keyed)), timeout)
        if isinstance(answer, NotYet):
            raise not_answered(request, timeout)
        return answer

    async def get_entity(self, instance_id: str) -> EntityState | None:
        return await self._ask(protocol.GET_ENTITY, GetEntity(instance_id=instance_id))

    async def list_entities(self, wanted: EntityFilter, after: str, limit: int) -> Sequence[EntityState]:
        return await self._ask(protocol.LIST_ENTITIES, ListEntities(wanted=wanted, after=after, limit=limit))

    async def break_lock(self, instance_id: str) -> LockState | None:
        return await self._ask(protocol.BREAK_LOCK, BreakLock(instance_id=instance_id))

    async def clean_entities(
        self, idle_for: timedelta, *, remove_empty: bool, release_orphaned: bool
    ) -> EntitiesRemoved:
        arguments = CleanEntities(idle_for=idle_for, remove_empty=remove_empty, release_orphaned=release_orphaned)
        return await self._ask(protocol.CLEAN_ENTITIES, arguments)

    async def get_state(self, instance_id: str) -> OrchestrationState | None:
        return await self._ask(protocol.GET_STATE, OfInstance(instance_id=instance_id))

    async def get_history(self, instance_id: str) -> Sequence[HistoryEvent]:
        return await self._ask(protocol.GET_HISTORY, OfInstance(instance_id=instance_id))

    async def export_history(self, instance_id: str, *, first: int = 0, limit: int | None = None) -> ExportedHistory:
        arguments = ExportHistory(instance_id=instance_id, first=first, limit=limit)
        return await self._ask(protocol.EXPORT_HISTORY, arguments)

    async def list_instances(self, wanted: InstanceFilter, after: str, limit: int) -> Sequence[OrchestrationState]:
        return await self._ask(protocol.LIST_INSTANCES, ListInstances(wanted=wanted, after=after, limit=limit))

    async def count_instances(self, wanted: InstanceFilter) -> dict[OrchestrationStatus, int]:
        return await self._ask(protocol.COUNT_INSTANCES, CountInstances(wanted=wanted))

    async def purge(self, instance_id: str, if_execution: str | None = None) -> None:
        await self._ask(protocol.PURGE, Purge(instance_id=instance_id, if_execution=if_execution))

    async def purge_instances(self, wanted: InstanceFilter, after: str, limit: int) -> InstancesPurged:
        return await self._ask(protocol.PURGE_INSTANCES, PurgeInstances(wanted=wanted, after=after, limit=limit))

    async def wait_until_stopped(self, instance_id: str, timeout: timedelta | None) -> OrchestrationState:
        answer = await self._wait(protocol.WAIT_UNTIL_STOPPED, WaitUntilStopped(instance_id=instance_id), timeout)
        if isinstance(answer, NotYet):
            raise not_stopped(instance_id, timeout)
        return answer

    # Asking

    async def _wait(self, method: Method[W, R], arguments: W, timeout: timedelta | None) -> R | NotYet:
        """Ask until there is an answer, or the timeout has run out."""
        now = asyncio.get_running_loop().time
        deadline = None if timeout is None else now() + timeout.total_seconds()
        is_first = True
        while True:
            rest_s = WAIT_S_MAX if deadline is None else max(0.0, min(deadline - now(), WAIT_S_MAX))
            part = msgspec.structs.replace(arguments, timeout=timedelta(seconds=rest_s))
            answer = await self._repeat(method, part, rest_s, was_asked=not is_first)
            if not isinstance(answer, NotYet) or (deadline is not None and now() >= deadline):
                return answer
            is_first = False

    async def _ask(self, method: Method[A, R], arguments: A) -> R:
        answer = await self._repeat(method, arguments, None, was_asked=False)
        if isinstance(answer, NotYet):
            raise self._strange(_NOT_YET)
        return answer

    async def _repeat(self, method: Method[A, R], arguments: A, wait_s: float | None, *, was_asked: bool) -> R | NotYet:
        """Send a request, and send it again while that is safe and may help.

        Args:
            was_asked: the host has got it before.
        """
        trouble: NotSentError | AnswerLostError | OverloadedError | HostStoppedError | StorageError | None = None
        for attempt in range(self._attempts_max):
            if attempt:
                await self._sleep(_pause_s(attempt))
            try:
                return await self._once(method, arguments, wait_s)
            except (NotSentError, OverloadedError) as error:  # nothing was stored
                trouble = error
            except AnswerLostError as error:
                trouble, was_asked = error, True
                if not arguments.is_repeatable:
                    break
            except (HostStoppedError, StorageError) as error:  # it may pass: a restart, a disk that is full
                trouble, was_asked = error, True
                if not arguments.is_repeatable or isinstance(error, CorruptRecordError):
                    break
            except InstanceNotRunningError as refusal:
                if was_asked and not arguments.is_read:
                    raise _DoneBeforeError(refusal) from refusal
                raise
        is_in_doubt = was_asked and not arguments.is_read
        # That nothing was stored the last time says nothing about an earlier one, whose answer was lost.
        if isinstance(trouble, HoldfastError) and not (is_in_doubt and isinstance(trouble, OverloadedError)):
            raise trouble
        if is_in_doubt:
            self._unknown(f"{method.name}: {trouble}", trouble)
        raise HostUnreachableError(
            f"The host at {self._name} cannot be reached: {trouble}. Nothing was stored. Is it running, and is this "
            "its URL?"
        ) from trouble

    async def _once(self, method: Method[A, R], arguments: A, wait_s: float | None) -> R | NotYet:
        try:
            body = msgspec.json.encode(arguments)
        except UnicodeEncodeError as error:
            raise PayloadError(f"{error.object[:40]!r} contains a lone surrogate, which UTF-8 cannot hold.") from error
        answer = await self._post(method, arguments, body, wait_s)
        if answer is None or answer.status == _NOT_YET:
            return NOT_YET
        if answer.status != _OK:
            raise self._refusal(answer)
        try:
            return method.decode_result(answer.body)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise ConfigurationError(
                f"The answer of {self._name} to {method.name} cannot be read: {error}. Is the host of this release?"
            ) from error

    async def _post(self, method: Method[A, R], arguments: A, body: bytes, wait_s: float | None) -> Answer | None:
        return await self._exchange.post(f"{HUB_PATH}/{method.name}", body, wait_s)

    def _refusal(self, answer: Answer) -> Exception:
        try:
            return from_wire(msgspec.json.decode(answer.body, type=Refusal).error)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            pass  # it is not of the hub, but of what is in front of it
        if answer.status >= 500:
            return AnswerLostError(f"HTTP status {answer.status}")
        if answer.status == 401:
            return ConfigurationError(
                f"The host at {self._name} refuses the key (HTTP status 401). Pass the right one as key= of connect, "
                "or in HOLDFAST_KEY."
            )
        if answer.status == 403:
            return ConfigurationError(
                f"The host at {self._name} does not allow this (HTTP status 403): {_message(answer)}. The key is that "
                "of key= of connect, or of HOLDFAST_KEY."
            )
        if answer.status == 413:
            return PayloadTooLargeError(f"The request is larger than {self._name} takes; nothing of it was stored.")
        return self._strange(answer.status)

    def _strange(self, status: int) -> ConfigurationError:
        return ConfigurationError(
            f"{self._name} answers with HTTP status {status}, as no host of this release does. Is this its URL, with "
            "the prefix below which its app is mounted?"
        )

    async def _history_after(self, error: _DoneBeforeError, instance_id: str) -> Sequence[HistoryEvent]:
        """Return where it is written whether a request that was refused in the end had been done."""
        try:
            return await self.get_history(instance_id)
        except HoldfastError as trouble:
            self._unknown(error, trouble)

    def _unknown(self, why: object, cause: Exception | None) -> NoReturn:
        raise CommitFailedError(
            f"The answer of the host at {self._name} was lost ({why}): the request may have been done, or not. "
            "Look at the status first, then repeat it; a key would let it be repeated without a second effect.",
            outcome_unknown=True,
        ) from cause


class _Told(msgspec.Struct):
    """The body of an error that is not of the hub."""

    Message: str


def _message(answer: Answer) -> str:
    """Return what an answer tells people."""
    try:
        return msgspec.json.decode(answer.body, type=_Told).Message.rstrip(".")
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return "it does not say why"


def _pause_s(attempt: int) -> float:
    """Return how long to wait before an attempt, of which the first is number 0."""
    pause_s = _PAUSE_S
    for _ in range(attempt - 1):
        pause_s = min(3 * pause_s, _PAUSE_S_MAX)
    return pause_s


class _DoneBeforeError(HoldfastError):
    """A request was refused when it was repeated, perhaps because it had its effect the first time."""

    def __init__(self, refusal: InstanceNotRunningError) -> None:
        super().__init__(str(refusal))
        self.refusal = refusal
