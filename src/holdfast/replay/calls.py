"""The part of the context that starts work: activities, sub-orchestrations, many of them, other orchestrations."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Any, Final, TypeVar, Unpack, cast, overload

from holdfast.errors import InvalidInputError
from holdfast.model.actions import CreateSubOrchestration, ScheduleTask
from holdfast.model.failure import FailureDetails, exception_from_failure
from holdfast.model.ids import validate_instance_id
from holdfast.model.instants import instant
from holdfast.model.options import (
    ActivityOptions,
    DetachedOptions,
    SubOrchestrationOptions,
    check_activity_options,
    check_names,
    check_retry,
    check_version,
)
from holdfast.model.refs import NO_INPUT, Activity, Orchestrator, encode_input, validate_name
from holdfast.model.requests import check_duration, check_tags
from holdfast.model.retry import RetryHandler, RetryPolicy
from holdfast.model.task_policy import PLAIN, policy_of
from holdfast.replay.locks import Locks
from holdfast.replay.mapping import Mapping, starts_of
from holdfast.replay.orchestration import Execution
from holdfast.replay.retries import Retrying, RetryPlan, plan_of
from holdfast.replay.tasks import DurableTask

I = TypeVar("I")  # noqa: E741 - input and output, as everywhere in the typed API
O = TypeVar("O")  # noqa: E741

_MAP_CONCURRENCY = 50
_NO_OPTIONS: Final[ActivityOptions] = {}


class Calls:
    """Every call is scheduled at once; awaiting its task only waits."""

    __slots__ = ("_execution", "_locks")

    def __init__(self, execution: Execution) -> None:
        self._execution = execution
        self._locks = Locks()

    @overload
    def call_activity(self, activity: Activity[None, O], /, **options: Unpack[ActivityOptions]) -> DurableTask[O]: ...
    @overload
    def call_activity(
        self, activity: Activity[I, O], input: I, /, **options: Unpack[ActivityOptions]
    ) -> DurableTask[O]: ...
    @overload
    def call_activity(
        self, activity: str, input: Any = ..., /, **options: Unpack[ActivityOptions]
    ) -> DurableTask[Any]: ...
    def call_activity(
        self, activity: Activity[Any, Any] | str, input: Any = NO_INPUT, /, **options: Unpack[ActivityOptions]
    ) -> DurableTask[Any]:
        """Schedule an activity; the task has its result.

        Options: `retry`, `timeout`, `start_timeout`, `heartbeat_timeout`, `tags`, `version`, `queue`; see
        `ActivityOptions`. Those that are given override the activity's own.

        The task raises `TaskFailedError`, which is also an instance of the original class where that is loaded.
        """
        return self.prepare_activity(activity, input, options)()

    def prepare_activity(
        self, activity: Activity[Any, Any] | str, input: Any, options: ActivityOptions
    ) -> Callable[[], DurableTask[Any]]:
        """Check and encode a call of an activity; return what makes it."""
        self._check_usable()
        start, payload = self._activity_starter(activity, options), self._encode(activity, input)
        return lambda: start(payload)

    @overload
    def call_sub_orchestrator(
        self, orchestrator: Orchestrator[None, O], /, **options: Unpack[SubOrchestrationOptions]
    ) -> DurableTask[O]: ...
    @overload
    def call_sub_orchestrator(
        self, orchestrator: Orchestrator[I, O], input: I, /, **options: Unpack[SubOrchestrationOptions]
    ) -> DurableTask[O]: ...
    @overload
    def call_sub_orchestrator(
        self, orchestrator: str, input: Any = ..., /, **options: Unpack[SubOrchestrationOptions]
    ) -> DurableTask[Any]: ...
    def call_sub_orchestrator(
        self,
        orchestrator: Orchestrator[Any, Any] | str,
        input: Any = NO_INPUT,
        /,
        **options: Unpack[SubOrchestrationOptions],
    ) -> DurableTask[Any]:
        """Start another orchestration and wait for its result; its failure is raised here as `TaskFailedError`.

        Options: `instance_id`, `retry`, `timeout`, `version`, `tags`; see `SubOrchestrationOptions`.
        """
        self._check_usable()
        start = self._child_starter(orchestrator, options)
        return start(self._encode(orchestrator, input))

    @overload
    def start_orchestration(
        self, orchestrator: Orchestrator[None, Any], /, **options: Unpack[DetachedOptions]
    ) -> str: ...
    @overload
    def start_orchestration(
        self, orchestrator: Orchestrator[I, Any], input: I, /, **options: Unpack[DetachedOptions]
    ) -> str: ...
    @overload
    def start_orchestration(
        self, orchestrator: str, input: Any = ..., /, **options: Unpack[DetachedOptions]
    ) -> str: ...
    def start_orchestration(
        self, orchestrator: Orchestrator[Any, Any] | str, input: Any = NO_INPUT, /, **options: Unpack[DetachedOptions]
    ) -> str:
        """Start another orchestration that nobody waits for, and return its instance id.

        It goes on whatever becomes of this one. If its id is in use, nothing is started, and nobody is told.

        Options: `instance_id`, `version`, `tags`, `start_at`; see `DetachedOptions`.
        """
        self._check_usable()
        check_names(options, DetachedOptions, "start_orchestration")
        name = self._orchestrator_name(orchestrator)
        given, version, tags = self._child_options(options)
        start_at, payload = self._start_at(options.get("start_at")), self._encode(orchestrator, input)
        number = self._execution.asked.take_number()
        chosen = given or f"{self._execution.identity}:{number}"
        self._execution.asked.append(
            CreateSubOrchestration(number, name, chosen, payload, version, tags, detached=True, start_at=start_at)
        )
        return chosen

    @overload
    def map(
        self,
        function: Activity[I, O],
        items: Iterable[I],
        /,
        *,
        concurrency: int = ...,
        fail_fast: bool = ...,
        **options: Unpack[ActivityOptions],
    ) -> DurableTask[list[O]]: ...
    @overload
    def map(
        self, function: Orchestrator[I, O], items: Iterable[I], /, *, concurrency: int = ..., fail_fast: bool = ...
    ) -> DurableTask[list[O]]: ...
    def map(
        self,
        function: Activity[Any, Any] | Orchestrator[Any, Any],
        items: Iterable[Any],
        /,
        *,
        concurrency: int = _MAP_CONCURRENCY,
        fail_fast: bool = False,
        **options: Unpack[ActivityOptions],
    ) -> DurableTask[list[Any]]:
        """Call a function for each item, so many at a time; the task has the results in the order of the items.

        If calls fail, the others are made all the same, and the failure that happened first is raised at the end. With
        `fail_fast` it is raised at once; what runs is cancelled, and nothing more is started.
        """
        self._check_usable()
        if isinstance(concurrency, bool) or not isinstance(concurrency, int) or concurrency < 1:  # pyright: ignore[reportUnnecessaryIsInstance] - callers may be untyped
            raise InvalidInputError(f"concurrency={concurrency!r} must be a number of at least 1.")
        if isinstance(function, Orchestrator):
            if "instance_id" in options:
                raise InvalidInputError("ctx.map() makes many instances; they cannot have one instance_id.")
            start = self._child_starter(function, cast(SubOrchestrationOptions, options))
        else:
            start = self._activity_starter(function, options)
        payloads = [self._encode(function, item) for item in items]
        return Mapping(self._execution, starts_of(start, payloads), concurrency, fail_fast)

    def _activity_starter(
        self, activity: Activity[Any, Any] | str, options: ActivityOptions
    ) -> Callable[[str | None], DurableTask[Any]]:
        """Check a call but for its input; return what makes it."""
        execution = self._execution
        if not isinstance(activity, (Activity, str)):  # pyright: ignore[reportUnnecessaryIsInstance] - callers may be untyped
            raise InvalidInputError(f"{activity!r} is no activity; decorate the function with @app.activity.")
        chosen, policy, speculative, output_type = _NO_OPTIONS, PLAIN, False, Any
        if isinstance(activity, str):
            name = validate_name(activity)
        else:
            name, chosen, policy = activity.name, activity.options, activity.policy
            speculative, output_type = activity.speculative, activity.output_type
        if options:  # most calls have none, and those of the activity were checked when it was registered
            check_activity_options(name, options, execution.limits.tags_max)
            given = {key: value for key, value in options.items() if value is not None}
            chosen = cast(ActivityOptions, {**chosen, **given})
            policy = policy_of(chosen, speculative=speculative)
        plan = _plan(chosen.get("retry"))
        tags, version = chosen.get("tags") or {}, chosen.get("version")

        def schedule(payload: str | None) -> DurableTask[Any]:
            number = execution.asked.take_number()
            execution.asked.append(ScheduleTask(number, name, payload, policy, tags, version))
            return execution.open_tasks.add_call(number, output_type)

        if plan is None:
            return schedule
        return lambda payload: Retrying(execution, lambda: schedule(payload), plan)

    def _child_starter(
        self, orchestrator: Orchestrator[Any, Any] | str, options: SubOrchestrationOptions
    ) -> Callable[[str | None], DurableTask[Any]]:
        """Check a call but for its input; return what makes it."""
        execution = self._execution
        self._locks.check_sub_orchestration()
        check_names(options, SubOrchestrationOptions, "call_sub_orchestrator")
        name = self._orchestrator_name(orchestrator)
        check_retry(name, options.get("retry"))
        timeout, retry = options.get("timeout"), options.get("retry")
        check_duration(f"timeout of sub-orchestration {name!r}: timeout", timeout)
        given, version, tags = self._child_options(options)
        output_type: Any = Any if isinstance(orchestrator, str) else orchestrator.output_type

        def schedule(payload: str | None) -> DurableTask[Any]:
            number = execution.asked.take_number()
            child = given or f"{execution.identity}:{number}"
            execution.asked.append(CreateSubOrchestration(number, name, child, payload, version, tags))
            return execution.open_tasks.add_call(number, output_type)

        def attempt(payload: str | None) -> DurableTask[Any]:
            if timeout is None:
                return schedule(payload)
            fire_at = instant(execution.clock(), timeout)
            return _limited(execution, schedule(payload), name, timeout, fire_at)

        if retry is None:
            return attempt
        return lambda payload: Retrying(execution, lambda: attempt(payload), plan_of(retry))

    def _orchestrator_name(self, orchestrator: Orchestrator[Any, Any] | str) -> str:
        if not isinstance(orchestrator, Orchestrator | str):  # pyright: ignore[reportUnnecessaryIsInstance] - callers may be untyped
            raise InvalidInputError(f"{orchestrator!r} is no orchestrator; decorate it with @app.orchestrator.")
        return validate_name(orchestrator) if isinstance(orchestrator, str) else orchestrator.name

    def _child_options(
        self, options: SubOrchestrationOptions | DetachedOptions
    ) -> tuple[str | None, str | None, dict[str, str]]:
        instance_id, version = options.get("instance_id"), options.get("version")
        parent = self._execution.parent_instance_id
        if instance_id is not None:
            validate_instance_id(instance_id)
            if instance_id in (self._execution.instance_id, parent):
                raise InvalidInputError(
                    "A sub-orchestration cannot have the instance id of its caller or that one's caller: "
                    f"{instance_id!r}."
                )
        check_version(version)
        return instance_id, version, check_tags(options.get("tags"), self._execution.limits.tags_max)

    def _start_at(self, start_at: datetime | timedelta | None) -> datetime | None:
        return None if start_at is None else instant(self._execution.clock(), start_at)

    def _encode(self, function: Activity[Any, Any] | Orchestrator[Any, Any] | str | None, input: Any) -> str | None:
        known = None if isinstance(function, str) else function
        return encode_input(self._execution.converter, known, input)

    def _check_usable(self) -> None:
        self._execution.check_usable()


def _plan(retry: RetryPolicy | RetryHandler | None) -> RetryPlan | None:
    """Return the retries that need orchestrator code at each attempt; the hub does the others by itself."""
    if retry is None or (isinstance(retry, RetryPolicy) and retry.predicate is None):
        return None
    return plan_of(retry)


def _limited(
    execution: Execution, task: DurableTask[Any], name: str, timeout: timedelta, fire_at: datetime
) -> DurableTask[Any]:
    """Race a call with a timer: when that fires, the call is cancelled and fails."""
    limited: DurableTask[Any] = DurableTask(execution, task.cancel)
    timer = execution.create_timer(fire_at)

    def timed_out(timer: DurableTask[Any]) -> None:
        if not timer.is_cancelled:
            task.cancel()  # before the failure leads to the next attempt
            details = FailureDetails("builtins.TimeoutError", f"Sub-orchestration {name!r} took longer than {timeout}.")
            limited.fail(lambda: exception_from_failure(details))

    def ended(task: DurableTask[Any]) -> None:
        if not task.is_cancelled:
            limited.take_over(task)
        timer.cancel()

    task.observe(ended)
    timer.observe(timed_out)
    return limited
