"""The endpoints about entities."""

from __future__ import annotations

from typing import Final

from holdfast.http.operations import (
    BOOLEAN,
    INSTANT,
    JSON,
    TEXT,
    TOKEN_HEADER,
    Answer,
    Body,
    Operation,
    Parameter,
    failure,
    no_content,
    ref,
)
from holdfast.http.table_instances import TOKEN, TOP

_GROUP: Final = "Entities"
_ENTITY: Final = "/entities/{entityName}/{entityKey}"
_LIST_PARAMETERS: Final = (
    Parameter("lastOperationTimeFrom", "used last then or later", INSTANT),
    Parameter("lastOperationTimeTo", "used last then or earlier", INSTANT),
    Parameter("fetchState", "adds their states", BOOLEAN),
    TOP,
    TOKEN,
)
_LIST_ANSWERS: Final = (
    Answer(200, "By id. The header tells whether there is more.", ref("Entities"), headers=(TOKEN_HEADER,)),
)
_NO_ENTITY: Final = failure(404, "There is no such entity.")

ENTITY_OPERATIONS: Final = (
    Operation(
        name="listEntities",
        method="GET",
        path="/entities",
        is_collection=True,
        group=_GROUP,
        text="List entities, page by page.",
        parameters=_LIST_PARAMETERS,
        answers=_LIST_ANSWERS,
    ),
    Operation(
        name="listEntitiesOfName",
        method="GET",
        path="/entities/{entityName}",
        is_collection=True,
        group=_GROUP,
        text="List the entities of one name, page by page.",
        parameters=_LIST_PARAMETERS,
        answers=_LIST_ANSWERS,
    ),
    Operation(
        name="readEntity",
        method="GET",
        path=_ENTITY,
        group=_GROUP,
        text="Read the bare state of an entity.",
        answers=(Answer(200, "The state.", {}), failure(404, "There is no such entity, or it has no state.")),
    ),
    Operation(
        name="signalEntity",
        method="POST",
        path=_ENTITY,
        group=_GROUP,
        text="Signal an operation.",
        parameters=(Parameter("op", "the operation"),),
        body=Body(f"The input of the operation. What is not declared as `{JSON}` is passed as a text.", (JSON, TEXT)),
        answers=(
            no_content(202, "The signal is stored."),
            failure(400, "There is no such entity or operation, or the body is no JSON."),
        ),
    ),
    Operation(
        name="deleteEntity",
        method="DELETE",
        path=_ENTITY,
        group=_GROUP,
        text="Signal the operation `delete`: a class loses its state, a function does what it does with that name.",
        answers=(no_content(202, "The signal is stored."),),
    ),
    Operation(
        name="readLock",
        method="GET",
        path=f"{_ENTITY}/lock",
        group=_GROUP,
        text="Tell who holds the lock of an entity, and who waits for it, in order.",
        answers=(Answer(200, "The lock.", ref("Lock")), _NO_ENTITY),
    ),
    Operation(
        name="breakLock",
        method="DELETE",
        path=f"{_ENTITY}/lock",
        group=_GROUP,
        text="Take the lock from whoever holds it.",
        answers=(Answer(200, "Who that was.", ref("BrokenLock")),),
    ),
)
