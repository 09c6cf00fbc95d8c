"""The client: starts, watches and steers orchestrations, signals and reads entities."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, TypeVar, Unpack, overload

from holdfast.client.entities import EntityOperations
from holdfast.client.handle import OrchestrationHandle
from holdfast.client.instances import Instances
from holdfast.client.lifecycle import Lifecycle
from holdfast.client.origins import random_id, utc_now
from holdfast.client.port import TaskHub
from holdfast.client.status import InstanceStatus
from holdfast.errors import InstanceParkedError, OrchestrationFailedError, UpdateRejectedError
from holdfast.model.converter import DataConverter
from holdfast.model.failure import exception_from_failure
from holdfast.model.history import (
    CancelRequested,
    EventRaised,
    ExecutionResumed,
    ExecutionSuspended,
    ExecutionTerminated,
    HistoryEvent,
    UpdateRequested,
)
from holdfast.model.ids import NewId, validate_instance_id
from holdfast.model.limits import Limits
from holdfast.model.options import StartOptions, check_start_options
from holdfast.model.refs import (
    NO_INPUT,
    ExternalEvent,
    Orchestrator,
    encode_input,
    validate_event_name,
    validate_name,
)
from holdfast.model.requests import REPLACE_ENDED, StartRequest, check_duration, check_key, check_tags
from holdfast.model.status import OrchestrationState, OrchestrationStatus

I = TypeVar("I")  # noqa: E741 - input and output, as everywhere in the typed API
O = TypeVar("O")  # noqa: E741
T = TypeVar("T")


_REQUESTS: Final = uuid.UUID("7d1f6f5e-6a0c-4c8b-9c55-0f4f2c3a9b11")
"""The namespace of the instance ids that are made from request keys."""


class Client(EntityOperations, Instances, Lifecycle):
    """Talks to a task hub. A request that returns has been stored; one that raises, unless it says so, has not."""

    def __init__(
        self,
        hub: TaskHub,
        converter: DataConverter,
        limits: Limits | None = None,
        *,
        now: Callable[[], datetime] = utc_now,
        new_id: NewId = random_id,
    ) -> None:
        self._hub = hub
        self._limits = limits or Limits()
        self._converter = converter
        self._now = now
        self._new_id = new_id

    @overload
    async def start_new(
        self, orchestrator: Orchestrator[None, O], /, **options: Unpack[StartOptions]
    ) -> OrchestrationHandle[O]: ...
    @overload
    async def start_new(
        self, orchestrator: Orchestrator[I, O], input: I, /, **options: Unpack[StartOptions]
    ) -> OrchestrationHandle[O]: ...
    @overload
    async def start_new(
        self, orchestrator: str, input: Any = ..., /, **options: Unpack[StartOptions]
    ) -> OrchestrationHandle[Any]: ...
    async def start_new(
        self, orchestrator: Orchestrator[Any, Any] | str, input: Any = NO_INPUT, /, **options: Unpack[StartOptions]
    ) -> OrchestrationHandle[Any]:
        """Start an orchestration, under an id of your choice or a new one.

        Options: `instance_id`, `version`, `tags`, `start_at`, `run_timeout`, `id_policy`, `request_key`; see
        `StartOptions`. Of several starts with one id exactly one succeeds, as long as that instance has not ended;
        `id_policy` and `request_key` change that.

        Raises:
            InstanceAlreadyExistsError: if the id is in use, and the policy rejects that.
            NotRegisteredError: if the app has no such orchestrator.
            InvalidInputError: if the id or the input cannot be stored.
            OverloadedError: if too much waits to be stored already.
        """
        if options:
            check_start_options(options, self._limits.tags_max)
        name = orchestrator if isinstance(orchestrator, str) else orchestrator.name
        output_type: Any = Any if isinstance(orchestrator, str) else orchestrator.output_type
        instance_id, request_key = options.get("instance_id"), options.get("request_key")
        made = self._new_id() if request_key is None else uuid.uuid5(_REQUESTS, f"{name}/{request_key}").hex
        request = StartRequest(
            name=name,
            instance_id=made if instance_id is None else validate_instance_id(instance_id),
            input=encode_input(self._converter, None if isinstance(orchestrator, str) else orchestrator, input),
            version=options.get("version"),
            tags=check_tags(options.get("tags"), self._limits.tags_max),
            start_at=options.get("start_at"),
            run_timeout=options.get("run_timeout"),
            id_policy=options.get("id_policy") or REPLACE_ENDED,
            request_key=request_key,
            is_new_id=instance_id is None and request_key is None,
        )
        await self._hub.start_orchestration(request)
        return OrchestrationHandle(self, request.instance_id, output_type)

    def get_handle(self, orchestrator: Orchestrator[Any, O], instance_id: str) -> OrchestrationHandle[O]:
        """Return a handle for an orchestration that was started elsewhere; nothing is checked."""
        return OrchestrationHandle(self, validate_instance_id(instance_id), orchestrator.output_type)

    def _handle(self, instance_id: str, output_type: Any = Any) -> OrchestrationHandle[Any]:
        return OrchestrationHandle(self, instance_id, output_type)

    async def get_status(self, instance_id: str) -> InstanceStatus | None:
        """Return the state of an instance, or None if there is none."""
        state = await self._hub.get_state(instance_id)
        return None if state is None else InstanceStatus(state, self._converter)

    async def get_history(self, instance_id: str) -> Sequence[HistoryEvent]:
        """Return the history of the current execution, oldest event first.

        Raises:
            InstanceNotFoundError: if there is no such instance.
        """
        return await self._hub.get_history(instance_id)

    async def export_history(self, instance_id: str) -> str:
        """Return the history of the current execution as a text, to be kept and replayed by `App.check_replay`.

        Raises:
            InstanceNotFoundError: if there is no such instance.
            InvalidInstanceIdError: if it is an entity, which has no history.
        """
        from holdfast.codec.exported import encode_exported

        return encode_exported(await self._hub.export_history(validate_instance_id(instance_id)))

    async def wait_for_completion(self, instance_id: str, *, timeout: timedelta | None = None) -> Any:
        """Wait until an instance ends and return its result as plain JSON values; raises as the handle's method does.

        Raises:
            InstanceNotFoundError: if there is no such instance.
        """
        return await self.wait_for_result(instance_id, Any, timeout)

    async def wait_until_stopped(self, instance_id: str, *, timeout: timedelta | None = None) -> InstanceStatus:
        """Wait until an instance has ended, however, or is parked; return its state then.

        Raises:
            InstanceNotFoundError, WaitTimeoutError.
        """
        return InstanceStatus(await self._hub.wait_until_stopped(instance_id, timeout), self._converter)

    async def wait_for_result(self, instance_id: str, output_type: Any, timeout: timedelta | None) -> Any:
        state = await self._hub.wait_until_stopped(instance_id, timeout)
        return self._result(state, output_type)

    def _result(self, state: OrchestrationState, output_type: Any) -> Any:
        if state.parked is not None:
            raise InstanceParkedError(state.instance_id, state.parked)
        if state.runtime_status is not OrchestrationStatus.COMPLETED:
            raise OrchestrationFailedError(state.instance_id, state.runtime_status.value, state.failure)
        return self._converter.decode("null" if state.output is None else state.output, output_type)

    @overload
    async def raise_event(self, instance_id: str, event: ExternalEvent[None], *, key: str | None = None) -> None: ...
    @overload
    async def raise_event(
        self, instance_id: str, event: ExternalEvent[T], data: T, *, key: str | None = None
    ) -> None: ...
    @overload
    async def raise_event(self, instance_id: str, event: str, data: Any = None, *, key: str | None = None) -> None: ...
    async def raise_event(
        self, instance_id: str, event: ExternalEvent[Any] | str, data: Any = None, *, key: str | None = None
    ) -> None:
        """Send an external event; it is kept until the orchestration waits for it.

        Args:
            key: names this event: of several with one key the orchestration sees the first, so that it can be sent
                again when the reply to the first request was lost.

        Raises:
            InstanceNotFoundError: if there is no such instance.
            InstanceNotRunningError: if it has ended.
            OverloadedError: if too many messages wait for it.
        """
        check_key("key", key)
        name = validate_event_name(event) if isinstance(event, str) else event.name
        payload = self._converter.encode(data)
        await self._hub.send(instance_id, EventRaised(timestamp=self._now(), name=name, input=payload, key=key))

    async def cancel(self, instance_id: str, reason: str | None = None) -> None:
        """Ask an orchestration to end: `CancelledError` is raised where it waits, so that it can clean up.

        What it waits for is given up: running activities are stopped, sub-orchestrations cancelled. It ends as
        `Canceled`, unless its code decides otherwise. A suspended one hears of it when it is resumed. Asking again
        changes nothing.

        Raises:
            InstanceNotFoundError, InstanceNotRunningError.
        """
        await self._hub.send(instance_id, CancelRequested(timestamp=self._now(), reason=self._reason(reason)))

    async def terminate(self, instance_id: str, reason: str | None = None, *, recursive: bool = False) -> None:
        """End an orchestration at once; it takes no more steps, and running activities are stopped.

        Its sub-orchestrations go on, unless it is `recursive`.

        Raises:
            InstanceNotFoundError, InstanceNotRunningError.
        """
        await self._hub.send(
            instance_id,
            ExecutionTerminated(timestamp=self._now(), reason=self._reason(reason), recursive=bool(recursive)),
        )

    async def suspend(self, instance_id: str, reason: str | None = None, *, recursive: bool = False) -> None:
        """Let an orchestration pause, with its open sub-orchestrations if `recursive`.

        What arrives for it waits; timers keep counting, and activities that run go on.

        Raises:
            InstanceNotFoundError, InstanceNotRunningError.
        """
        await self._hub.send(
            instance_id,
            ExecutionSuspended(timestamp=self._now(), reason=self._reason(reason), recursive=bool(recursive)),
        )

    async def resume(self, instance_id: str, reason: str | None = None, *, recursive: bool = False) -> None:
        """Let a suspended or parked instance go on, with its open sub-orchestrations if `recursive`.

        Raises:
            InstanceNotFoundError, InstanceNotRunningError.
        """
        await self._hub.send(
            instance_id, ExecutionResumed(timestamp=self._now(), reason=self._reason(reason), recursive=bool(recursive))
        )

    async def query(self, instance_id: str, name: str, input: Any = None) -> Any:
        """Ask a live orchestration something; its query handler of this name answers, from committed state.

        Raises:
            InstanceNotFoundError, InstanceNotRunningError.
            QueryFailedError: if it has no such handler, the handler raises, or it has not begun to run.
        """
        payload = self._converter.encode(input)
        return self._converter.decode(await self._hub.query(instance_id, validate_name(name), payload), Any)

    async def update(
        self,
        instance_id: str,
        name: str,
        input: Any = None,
        *,
        update_id: str | None = None,
        timeout: timedelta | None = None,
    ) -> Any:
        """Ask a live orchestration to change, and return what its update handler of this name answers.

        Args:
            update_id: names this request: as long as the execution lasts, its repetition has no second effect, and
                gets the same answer.
            timeout: how long to wait for the answer; the update may be made all the same.

        Raises:
            InstanceNotFoundError, InstanceNotRunningError.
            UpdateRejectedError: if its validator refuses it, or it has no such handler; nothing has changed.
            TaskFailedError: if the handler raised; an instance of the original class where that is loaded.
            WaitTimeoutError: if there is no answer in time.
        """
        check_key("update_id", update_id)
        check_duration("timeout", timeout)
        request = UpdateRequested(
            timestamp=self._now(),
            update_id=update_id or self._new_id(),
            name=validate_name(name),
            input=self._converter.encode(input),
        )
        answer = await self._hub.update(instance_id, request, timeout)
        if answer.failure is not None:
            if answer.failure.error_type == "holdfast.errors.UpdateRejectedError":
                raise UpdateRejectedError(instance_id, answer.failure.error_message)
            raise exception_from_failure(answer.failure)
        return self._converter.decode("null" if answer.result is None else answer.result, Any)

    def _reason(self, reason: str | None) -> str | None:
        return None if reason is None else self._converter.encode(reason)


def hub_of(client: Client) -> TaskHub:
    """Return the hub that a client talks to, for what passes requests on to it."""
    return client._hub  # pyright: ignore[reportPrivateUsage] - what its methods are to users, this is to transports
