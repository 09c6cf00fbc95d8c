"""Durable HTTP as orchestrator code: one request after the other, with durable timers between them.

A 202 with a `Location` is polled, as the asynchronous HTTP APIs of the Durable Functions family answer; requests are
tried again by a retry policy. Each request is one attempt of a built-in activity.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import timedelta
from typing import Final

import msgspec

from holdfast.errors import InvalidInputError, TaskFailedError
from holdfast.model.actions import ScheduleTask
from holdfast.model.failure import FailureDetails
from holdfast.model.http_call import (
    DurableHttpRequest,
    DurableHttpResponse,
    check_request,
    poll_delay,
    poll_request,
)
from holdfast.model.instants import after
from holdfast.model.refs import HTTP_ACTIVITY
from holdfast.model.requests import check_duration
from holdfast.model.retry import RetryPolicy, RetryRule, next_delay
from holdfast.model.task_policy import PLAIN, TaskPolicy
from holdfast.replay.orchestration import Execution

_POLL_INTERVAL: Final = timedelta(seconds=30)


class HttpCall(msgspec.Struct, frozen=True, kw_only=True):
    """One durable HTTP call, checked."""

    request: DurableHttpRequest
    timeout: timedelta | None
    retry: RetryRule | None
    retried_statuses: frozenset[int]
    polls: bool
    poll_interval: timedelta


def checked_call(
    request: DurableHttpRequest,
    timeout: timedelta | None,
    retry: RetryPolicy | None,
    retry_statuses: Collection[int],
    polls: bool,
    poll_interval: timedelta | None,
) -> HttpCall:
    """Return a call, if it can be one.

    Raises:
        InvalidInputError: saying what is wrong with it.
    """
    check_request(request)
    check_duration("timeout of call_http: timeout", timeout)
    check_duration("poll_interval of call_http: poll_interval", poll_interval)
    if retry is not None and (not isinstance(retry, RetryPolicy) or retry.predicate is not None):  # pyright: ignore[reportUnnecessaryIsInstance] - callers may be untyped
        raise InvalidInputError(f"retry={retry!r} of call_http must be a RetryPolicy without a predicate.")
    return HttpCall(
        request=request,
        timeout=timeout,
        retry=None if retry is None else retry.rule(),
        retried_statuses=frozenset(retry_statuses),
        polls=polls,
        poll_interval=poll_interval or _POLL_INTERVAL,
    )


async def make_call(execution: Execution, call: HttpCall) -> DurableHttpResponse:
    """Make a call, and poll for its result if it is answered by a 202."""
    response = await _attempts(execution, call, call.request)
    while call.polls:
        following = poll_request(call.request, response)
        if following is None:
            break
        delay = poll_delay(response, execution.clock(), call.poll_interval)
        await execution.create_timer(after(execution.clock(), delay))
        call = msgspec.structs.replace(call, request=following)
        response = await _attempts(execution, call, following)
    return response


async def _attempts(execution: Execution, call: HttpCall, request: DurableHttpRequest) -> DurableHttpResponse:
    """Send a request until it is answered well, or the policy gives up; then the last answer or failure counts."""
    started_at, attempts = execution.clock(), 0
    while True:
        attempts += 1
        response, error = await _attempt(execution, call, request)
        if response is not None and response.status_code not in call.retried_statuses:
            return response
        delay = None
        if call.retry is not None:
            details = error.details if error else FailureDetails("holdfast.errors.DurableHttpError", "a bad status")
            seed = f"{execution.identity}:{request.uri}"
            delay = next_delay(call.retry, details, attempts, execution.clock() - started_at, seed)
        if delay is not None:
            await execution.create_timer(after(execution.clock(), delay))
        elif response is not None:
            return response
        elif error is not None:
            raise error


async def _attempt(
    execution: Execution, call: HttpCall, request: DurableHttpRequest
) -> tuple[DurableHttpResponse | None, TaskFailedError | None]:
    payload = execution.converter.encode(request)
    policy = PLAIN if call.timeout is None else TaskPolicy(timeout=call.timeout)
    number = execution.asked.take_number()
    execution.asked.append(ScheduleTask(number, HTTP_ACTIVITY, payload, policy))
    task = execution.open_tasks.add_call(number, DurableHttpResponse)
    try:
        return await task, None
    except TaskFailedError as error:
        return None, error
