"""The endpoints that start, read and remove instances."""

from __future__ import annotations

from typing import Final

from holdfast.http.operations import (
    BOOLEAN,
    EVENT_STREAM,
    INSTANT,
    INTEGER,
    NDJSON,
    NO_INSTANCE,
    SECONDS,
    STRINGS,
    TOKEN_HEADER,
    TOO_MANY_WAITS,
    Answer,
    Body,
    Operation,
    Parameter,
    failure,
    ref,
)
from holdfast.model.status import OrchestrationStatus

WAIT: Final = (
    Parameter("timeout", "with `pollingInterval`: seconds to wait for the result", SECONDS),
    Parameter("pollingInterval", "at most `timeout`; nothing is polled, it only has to be there", SECONDS),
)
ERROR_ON_FAILURE: Final = Parameter(
    "returnInternalServerErrorOnFailure", "500 instead of 200 for a failed instance", BOOLEAN
)
SHOW_INPUT: Final = Parameter("showInput", "false hides inputs", BOOLEAN)
TOP: Final = Parameter("top", "how many at most, 100 by default; more than 1,000 count as 1,000", INTEGER)
TOKEN: Final = Parameter(TOKEN_HEADER, "from the answer before: goes on there", where="header")
ACCEPTED: Final = Answer(
    202, "The management URLs of the instance.", ref("ManagementPayload"), headers=("Location", "Retry-After")
)
WAITED: Final = (
    Answer(200, "With a wait: its bare output if it has completed, its status if it ended otherwise.", {}),
    Answer(500, "With a wait: it failed, and `returnInternalServerErrorOnFailure` is set.", {}),
    TOO_MANY_WAITS,
)
ENDED: Final = frozenset(status.value for status in OrchestrationStatus if status.is_terminal)

_RANGE: Final = (
    Parameter("createdTimeFrom", "created then or later", INSTANT),
    Parameter("createdTimeTo", "created then or earlier", INSTANT),
    Parameter("runtimeStatus", "one of these statuses; repeated, or with commas", STRINGS),
)
_MORE: Final = (
    Parameter("instanceIdPrefix", "its id begins so"),
    Parameter("lastUpdatedTimeFrom", "changed last, or ended, then or later", INSTANT),
    Parameter("lastUpdatedTimeTo", "changed last, or ended, then or earlier", INSTANT),
    Parameter("name", "of this orchestrator"),
    Parameter("parent", "started by the instance of this id"),
    Parameter("tag", "has this tag, as `key:value`; repeated: all of them", STRINGS),
    Parameter("customStatus", "a JSON value; what is no JSON counts as a text"),
    Parameter("parked", "true: waits for an operator; false: does not", BOOLEAN),
)
_FILTERS: Final = (*_RANGE, *_MORE)
_PAGE: Final = (
    Answer(200, "By id. The header tells whether there is more.", ref("Statuses"), headers=(TOKEN_HEADER,)),
)
_PURGED: Final = Answer(200, "How many were removed.", ref("Purged"))
_REMOVED: Final = "The instance, its history and its messages are removed for good."
_GROUP: Final = "Instances"

_START_ANSWERS: Final = (
    ACCEPTED,
    *WAITED,
    failure(400, "There is no such orchestrator, or the input is no JSON."),
)
_START_PARAMETERS: Final = (Parameter("version", "the version of the orchestrator"), *WAIT, ERROR_ON_FAILURE)
_START_BODY: Final = Body("The input; may be empty.")


INSTANCE_OPERATIONS: Final = (
    Operation(
        name="start",
        method="POST",
        path="/orchestrators/{functionName}",
        group="Starting",
        text="Start an orchestration.",
        parameters=_START_PARAMETERS,
        body=_START_BODY,
        answers=_START_ANSWERS,
    ),
    Operation(
        name="startWithId",
        method="POST",
        path="/orchestrators/{functionName}/{instanceId}",
        group="Starting",
        text="Start an orchestration under an instance id of your choice.",
        parameters=_START_PARAMETERS,
        body=_START_BODY,
        answers=(*_START_ANSWERS, failure(409, "The instance id is in use; `400` with the older codes.")),
        open_tail=True,
    ),
    Operation(
        name="list",
        method="GET",
        path="/instances",
        is_collection=True,
        group=_GROUP,
        text="List instances, page by page; all conditions must hold.",
        parameters=(*_FILTERS, SHOW_INPUT, TOP, TOKEN),
        answers=_PAGE,
    ),
    Operation(
        name="parked",
        method="GET",
        path="/parked",
        group=_GROUP,
        text=(
            "List what waits for an operator, also because its record is damaged: orchestrations, and behind them "
            "entities, unless there is a condition other than the times of the last change."
        ),
        parameters=(*(each for each in _FILTERS if each.name != "parked"), SHOW_INPUT, TOP, TOKEN),
        answers=_PAGE,
    ),
    Operation(
        name="count",
        method="GET",
        path="/instances/counts",
        group=_GROUP,
        text="Count instances by status. An instance whose id is `counts` cannot be read at its own path.",
        parameters=_FILTERS,
        answers=(Answer(200, "Statuses that no instance has are left out.", ref("Counts")),),
    ),
    Operation(
        name="purgeMany",
        method="DELETE",
        path="/instances",
        is_collection=True,
        group=_GROUP,
        text=f"Purge the instances that have ended and match. {_REMOVED}",
        parameters=(Parameter("createdTimeFrom", "needed", INSTANT, required=True), *_RANGE[1:], *_MORE),
        answers=(
            _PURGED,
            failure(400, "`createdTimeFrom` is missing, or a condition cannot be; an unknown status too."),
            failure(404, "None was removed."),
        ),
    ),
    Operation(
        name="bulk",
        method="POST",
        path="/bulk/{action}",
        group=_GROUP,
        text=(
            "Start a job that does `terminate`, `cancel`, `suspend`, `resume`, `rewind` or `purge` with all instances "
            "that match. It is an orchestration; its custom status says how many are `done` and `refused`."
        ),
        parameters=(
            *_FILTERS,
            Parameter("all", "true: needed if there is no condition", BOOLEAN),
            Parameter("reason", "for each of them"),
        ),
        answers=(
            ACCEPTED,
            failure(400, "There is no such action, or a condition that cannot be; an unknown status too."),
        ),
    ),
    Operation(
        name="status",
        method="GET",
        path="/instances/{instanceId}",
        group=_GROUP,
        text="Read the status of an instance.",
        parameters=(
            SHOW_INPUT,
            Parameter("showHistory", "adds `historyEvents`, not for pending ones", BOOLEAN),
            Parameter("showHistoryOutput", "results in the history", BOOLEAN),
            ERROR_ON_FAILURE,
        ),
        answers=(
            Answer(200, "It has ended.", ref("Status")),
            Answer(202, "It has not.", ref("Status"), headers=("Location", "Retry-After")),
            NO_INSTANCE,
            Answer(500, "It failed, and `returnInternalServerErrorOnFailure` is set.", ref("StatusOrError")),
        ),
    ),
    Operation(
        name="purge",
        method="DELETE",
        path="/instances/{instanceId}",
        group=_GROUP,
        text=f"Purge an instance that has ended, an entity, or what cannot be read any more. {_REMOVED}",
        answers=(
            _PURGED,
            NO_INSTANCE,
            failure(412, "It has not ended; `404` with the older codes."),
        ),
    ),
    Operation(
        name="history",
        method="GET",
        path="/instances/{instanceId}/history",
        group=_GROUP,
        text="Read the whole history, each event for itself, oldest first: by pages of episodes, or as a stream.",
        parameters=(
            SHOW_INPUT,
            Parameter("showHistoryOutput", "false hides results", BOOLEAN),
            Parameter("top", "episodes in a page, 100 by default; more than 1,000 count as 1,000", INTEGER),
            TOKEN,
            Parameter("Accept", f"`{NDJSON}`: all of it in one answer, one event in a line", where="header"),
        ),
        answers=(
            Answer(200, "A page of events.", ref("History"), headers=(TOKEN_HEADER,)),
            Answer(200, f"With `Accept: {NDJSON}`: all of them, one in a line.", {}, NDJSON),
            NO_INSTANCE,
            failure(409, "It was continued as new or started again since the first page; begin anew."),
        ),
    ),
    Operation(
        name="events",
        method="GET",
        path="/instances/{instanceId}/events",
        group=_GROUP,
        text=(
            "Watch an instance: a server-sent event `status` with the status object, at once and after each change, "
            "until it has ended or is parked. Changes that follow each other closely are told as one."
        ),
        parameters=(SHOW_INPUT,),
        answers=(
            Answer(
                200, "The stream. A comment is sent when nothing changes for long.", ref("LiveUpdate"), EVENT_STREAM
            ),
            NO_INSTANCE,
            failure(429, "`http_streams_max` streams are open."),
        ),
    ),
)
