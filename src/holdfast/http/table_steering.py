"""The endpoints that change an instance, or ask its code something."""

from __future__ import annotations

from typing import Final

from holdfast.http.operations import (
    BOOLEAN,
    GONE,
    INTEGER,
    JSON,
    NO_INSTANCE,
    SECONDS,
    TOO_MANY_WAITS,
    Answer,
    Body,
    Operation,
    Parameter,
    failure,
    no_content,
)
from holdfast.http.table_instances import ACCEPTED, ERROR_ON_FAILURE, WAIT, WAITED

_GROUP: Final = "Steering"
_REASON: Final = Parameter("reason", "kept in the history")
_RECURSIVE: Final = Parameter("recursive", "its open sub-orchestrations too", BOOLEAN)
_STORED: Final = no_content(202, "The request is stored.")
_WRONG_STATE: Final = failure(500, "It is in a state that does not allow it.")
_ANSWERED: Final = Answer(200, "What the handler returned.", {})

STEERING_OPERATIONS: Final = (
    Operation(
        name="raiseEvent",
        method="POST",
        path="/instances/{instanceId}/raiseEvent/{eventName}",
        group=_GROUP,
        text="Send an external event; it is kept until the orchestration waits for it.",
        body=Body(f"Its payload. `Content-Type: {JSON}` is needed, also without one."),
        answers=(_STORED, failure(400, "The body is no JSON, or not declared as it."), NO_INSTANCE, GONE),
    ),
    Operation(
        name="terminate",
        method="POST",
        path="/instances/{instanceId}/terminate",
        group=_GROUP,
        text="End an instance at once.",
        parameters=(_REASON, _RECURSIVE),
        answers=(_STORED, NO_INSTANCE, GONE),
    ),
    Operation(
        name="cancel",
        method="POST",
        path="/instances/{instanceId}/cancel",
        group=_GROUP,
        text="Ask an instance to end: its code can clean up.",
        parameters=(_REASON,),
        answers=(_STORED, NO_INSTANCE, GONE),
    ),
    Operation(
        name="suspend",
        method="POST",
        path="/instances/{instanceId}/suspend",
        group=_GROUP,
        text="Let an instance pause.",
        parameters=(_REASON, _RECURSIVE),
        answers=(_STORED, NO_INSTANCE, GONE, _WRONG_STATE),
    ),
    Operation(
        name="resume",
        method="POST",
        path="/instances/{instanceId}/resume",
        group=_GROUP,
        text="Let a suspended or parked instance go on.",
        parameters=(_REASON, _RECURSIVE),
        answers=(_STORED, NO_INSTANCE, GONE, _WRONG_STATE),
    ),
    Operation(
        name="rewind",
        method="POST",
        path="/instances/{instanceId}/rewind",
        group=_GROUP,
        text="Let an instance that has failed go on from just before that.",
        parameters=(_REASON,),
        answers=(
            _STORED,
            NO_INSTANCE,
            failure(409, "It failed where it cannot be rewound."),
            failure(410, "With the older codes: it has ended, but not failed."),
            failure(412, "It has not failed."),
            failure(500, "With the older codes: it has not ended."),
        ),
        repeats=True,
    ),
    Operation(
        name="restart",
        method="POST",
        path="/instances/{instanceId}/restart",
        group=_GROUP,
        text="Start an orchestration again from its beginning, with the same name and input.",
        parameters=(
            Parameter("restartWithNewInstanceId", "false: under the same id, if it has ended", BOOLEAN),
            *WAIT,
            ERROR_ON_FAILURE,
        ),
        answers=(
            ACCEPTED,
            *WAITED,
            failure(400, "There is no such instance, or no such orchestrator any more."),
            failure(409, "It is to keep its id, and has not ended; `400` with the older codes."),
        ),
        repeats=True,
    ),
    Operation(
        name="fork",
        method="POST",
        path="/instances/{instanceId}/fork",
        group=_GROUP,
        text="Begin a new instance with the beginning of the history of this one, which goes on unharmed.",
        parameters=(
            Parameter("newInstanceId", "an id that no instance has; a new one if it is left out"),
            Parameter("episode", "how many episodes to take over; all but the one that ended it if left out", INTEGER),
        ),
        answers=(ACCEPTED, NO_INSTANCE, failure(409, "The new id is in use, or it was in a critical section there.")),
        repeats=True,
    ),
    Operation(
        name="query",
        method="POST",
        path="/instances/{instanceId}/query/{queryName}",
        group=_GROUP,
        text="Ask a live instance something: its query handler answers.",
        body=Body("The input of the handler."),
        answers=(
            _ANSWERED,
            NO_INSTANCE,
            failure(409, "It has no such handler, the handler raised, or it has not begun to run."),
            GONE,
        ),
    ),
    Operation(
        name="update",
        method="POST",
        path="/instances/{instanceId}/update/{updateName}",
        group=_GROUP,
        text="Ask a live instance to change: its update handler does, and answers.",
        parameters=(
            Parameter("updateId", "names this request, so that its repetition has no second effect"),
            Parameter("timeout", "seconds to wait for the answer, 100 if left out", SECONDS),
        ),
        body=Body("The input of the handler."),
        answers=(
            _ANSWERED,
            NO_INSTANCE,
            failure(409, "It has no such handler, or refused the update; nothing has changed."),
            GONE,
            TOO_MANY_WAITS,
            failure(422, "The handler raised."),
            failure(504, "There was no answer in time; the update may be made all the same."),
        ),
    ),
    Operation(
        name="makePrimary",
        method="POST",
        path="/makeprimary",
        group="Host",
        text="Make this host the one that works. It is already, since it owns its store.",
        answers=(no_content(200, "It works."),),
    ),
)
