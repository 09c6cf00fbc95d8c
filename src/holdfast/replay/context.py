"""The object that orchestrator code holds."""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable, Collection, Mapping
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from holdfast.errors import InvalidInputError, OrchestratorMisuseError, PayloadTooLargeError
from holdfast.model.options import check_version
from holdfast.model.refs import Activity, Orchestrator, validate_name
from holdfast.model.retry import RETRIED_STATUSES, RetryPolicy
from holdfast.replay.completion import NextExecution
from holdfast.replay.deterministic import deterministic_random, deterministic_uuid
from holdfast.replay.logger import ReplaySafeLogger
from holdfast.replay.messaging import Messaging
from holdfast.replay.orchestration import Execution
from holdfast.replay.saga import Saga
from holdfast.replay.task_group import TaskGroup
from holdfast.replay.tasks import DurableTask

if TYPE_CHECKING:
    import logging

    from holdfast.model.http_call import DurableHttpResponse

O = TypeVar("O")  # noqa: E741 - output, as everywhere in the typed API


class OrchestrationContext(Messaging):
    """What an orchestrator may do, and all that it may know of the world.

    Every method that returns a `DurableTask` schedules at once; awaiting only waits. Arguments are checked and encoded
    at the call: a value that is not JSON-able raises `PayloadError` there.
    """

    __slots__ = ("_random", "_uuids")

    def __init__(self, execution: Execution) -> None:
        super().__init__(execution)
        self._random: random.Random | None = None
        self._uuids = 0

    @property
    def name(self) -> str:
        """The name of the orchestrator."""
        return self._execution.orchestrator.name

    @property
    def instance_id(self) -> str:
        """The id of this instance; while the history that a fork took over is replayed, that of the original."""
        return self._execution.instance_id

    @property
    def execution_id(self) -> str:
        """Changes with each `continue_as_new`, rewind and fork."""
        return self._execution.identity

    @property
    def parent_instance_id(self) -> str | None:
        """The instance that called this one as a sub-orchestration, if any."""
        return self._execution.parent_instance_id

    @property
    def version(self) -> str | None:
        """The version that this instance was started with."""
        return self._execution.version

    @property
    def tags(self) -> Mapping[str, str]:
        """The tags that this instance was started with, those of its callers included."""
        return MappingProxyType(self._execution.tags)

    @property
    def current_utc_datetime(self) -> datetime:
        """The time, aware and in UTC; it stands still between two waits and is the same on every replay."""
        return self._execution.clock()

    @property
    def is_replaying(self) -> bool:
        """Whether the code now runs over what has happened before."""
        return self._execution.is_replaying

    @property
    def is_locked(self) -> bool:
        """Whether the code is in a critical section."""
        return self._locks.is_locked

    @property
    def history_events(self) -> int:
        """How many events this execution's history had before this episode; see `continue_as_new`."""
        return self._execution.history_events

    @property
    def random(self) -> random.Random:
        """A generator that is the same on every replay; not for secrets."""
        self._check_usable()
        if self._random is None:
            self._random = deterministic_random(self.instance_id, self.execution_id)
        return self._random

    def new_uuid(self) -> uuid.UUID:
        """Return a UUID (version 5) that is the same on every replay."""
        self._check_usable()
        self._uuids += 1
        return deterministic_uuid(self.instance_id, self.execution_id, self.current_utc_datetime, self._uuids - 1)

    def create_replay_safe_logger(self, logger: logging.Logger) -> ReplaySafeLogger:
        """Return a logger that is silent while the code replays, so that each line is logged once."""
        return ReplaySafeLogger(logger, self._execution)

    def task_group(self) -> TaskGroup:
        """Return a scope for coroutines and tasks that end together, for `async with`; see `TaskGroup`."""
        self._check_usable()
        return TaskGroup(self._execution)

    def saga(self) -> Saga:
        """Return a scope whose steps are undone, in reverse, if it ends with an error, for `async with`; see `Saga`."""
        self._check_usable()
        return Saga(self.prepare_activity)

    def call_http(
        self,
        method: str,
        uri: str,
        *,
        content: str | None = None,
        headers: Mapping[str, str] | None = None,
        token_source: str | None = None,
        timeout: timedelta | None = None,
        retry: RetryPolicy | None = None,
        retry_statuses: Collection[int] = RETRIED_STATUSES,
        asynchronous_pattern_enabled: bool = True,
        poll_interval: timedelta | None = None,
    ) -> DurableTask[DurableHttpResponse]:
        """Send an HTTP request; the task has the response, whatever its status.

        Request and response are kept in the history, so put no secret in them: `token_source` names a function of the
        app (`@app.token_source`) that gives the bearer token when the request is sent. What may be called at all is
        decided by `HostConfig.http_calls`. Like every activity, a request may be sent more than once.

        Args:
            content: the body as text; with the content type text/plain if the headers have none.
            timeout: how long one request may take.
            retry: tries again what cannot be sent or answered, and answers with a status in `retry_statuses`.
            asynchronous_pattern_enabled: poll the `Location` of a 202 until the answer is another one.
            poll_interval: between polls, if the answer has no Retry-After; 30 seconds by default.

        The task raises `TaskFailedError`, as a `DurableHttpError`, if there was no answer.
        """
        # Imported here, so that a program that sends no such requests does not pay for it.
        from holdfast.model.http_call import DurableHttpRequest
        from holdfast.replay.http_calls import checked_call, make_call

        self._check_usable()
        request = DurableHttpRequest(
            method=method, uri=uri, headers=dict(headers or {}), content=content, token_source=token_source
        )
        call = checked_call(request, timeout, retry, retry_statuses, asynchronous_pattern_enabled, poll_interval)
        return self._execution.start_branch(make_call(self._execution, call))

    def patched(self, name: str, /) -> bool:
        """Return whether the code after a change is to be used: the code before it is for what was in flight.

        `if ctx.patched("new-tax"): ... else: ...` The first time that an execution asks decides, and is recorded. Once
        no instance from before the change is left, the old branch can go, and the question with it.
        """
        self._check_usable()
        return self._execution.asked.is_patched(validate_name(name))

    def set_query_handler(self, name: str, handler: Callable[..., Any], /) -> None:
        """Let clients ask a live orchestration something: the handler is called with their input, if it takes one.

        It must be a plain function that changes nothing, and cannot use the context. Set it before the first wait.
        """
        self._check_usable()
        self._execution.handlers.set_query(validate_name(name), handler)

    def set_update_handler(
        self, name: str, handler: Callable[..., Any], /, *, validator: Callable[..., Any] | None = None
    ) -> None:
        """Let clients change a live orchestration and get an answer: what the handler returns, or raises.

        The handler is orchestrator code: a function, or an `async def` or generator that waits for durable tasks. A
        validator that raises rejects the update without a trace; it must change nothing. Set it before the first wait.
        """
        self._check_usable()
        self._execution.handlers.set_update(validate_name(name), handler, validator)

    def continue_as_new(
        self,
        input: Any = None,
        /,
        *,
        preserve_unprocessed_events: bool = True,
        open_tasks: Literal["drop", "wait", "refuse"] = "drop",
        carry: Mapping[str, DurableTask[Any]] | None = None,
        version: str | None = None,
    ) -> None:
        """Start over with a new input and an empty history, once the function returns; return right after this call.

        Args:
            preserve_unprocessed_events: hand on the external events that nobody waited for.
            open_tasks: what happens to activities, sub-orchestrations and entity calls without an answer: "drop" stops
                the activities, lets the others go on, and hears none of them; "wait" starts over once all have ended;
                "refuse" raises `OrchestratorMisuseError`. Timers and waits are dropped.
            carry: activities and sub-orchestrations that go on, by the names under which the next execution finds them
                with `carried_task`.
            version: of the next execution, if it is to be another one.
        """
        self._check_usable()
        if open_tasks not in ("drop", "wait", "refuse"):  # pyright: ignore[reportUnnecessaryContains] - callers may be untyped
            raise InvalidInputError(f"open_tasks={open_tasks!r} must be 'drop', 'wait' or 'refuse'.")
        check_version(version)
        if carry and open_tasks != "drop":
            raise InvalidInputError(f"carry= does not go together with open_tasks={open_tasks!r}.")
        still_open = self._execution.open_tasks.work
        if open_tasks == "refuse" and still_open:
            raise OrchestratorMisuseError(
                f"Instance {self.instance_id!r} cannot continue as new: {still_open} tasks have not ended. "
                "Await or cancel them first."
            )
        payload = self._execution.converter.encode(input)
        self._execution.carried.hand_on(carry or {})
        self._execution.continue_as_new(
            NextExecution(payload, preserve_unprocessed_events, open_tasks == "wait", version)
        )

    def carried_task(self, name: str, function: Activity[Any, O] | Orchestrator[Any, O], /) -> DurableTask[O]:
        """Return a task that the execution before this one has handed on with `continue_as_new(carry=...)`.

        Args:
            function: what was called; it gives the type of the result.

        Raises:
            InvalidInputError: if none was handed on under this name.
        """
        self._check_usable()
        return self._execution.carried.get(name, function.output_type)

    def set_custom_status(self, status: Any, /) -> None:
        """Show a JSON-able value (16 KiB at most) to whoever asks for this instance's status, from the next wait on."""
        self._check_usable()
        text = self._execution.converter.encode(status)
        limit = self._execution.limits.custom_status_bytes_max
        if len(text.encode()) > limit:
            raise PayloadTooLargeError(
                f"The custom status has {len(text.encode())} bytes; at most {limit} are allowed."
            )
        self._execution.asked.custom_status = text
