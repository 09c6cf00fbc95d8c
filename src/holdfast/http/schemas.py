"""The JSON schemas of what the management API answers, by name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from holdfast.http.operations import JSON, Schema
from holdfast.model.status import OrchestrationStatus

_STRING: Final = {"type": "string"}
_SECOND: Final = {"type": "string", "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$"}
_ANY: Final[dict[str, object]] = {}
_STATUS: Final = {"type": "string", "enum": [status.value for status in OrchestrationStatus]}
_HOLDER: Final = {
    "type": ["object", "null"],
    "properties": {"instanceId": _STRING, "since": _SECOND},
    "required": ["instanceId", "since"],
}
_ENTITY_ID: Final = {
    "type": "object",
    "properties": {"name": _STRING, "key": _STRING},
    "required": ["name", "key"],
}
_URLS: Final = (
    "purgeHistoryDeleteUri",
    "sendEventPostUri",
    "statusQueryGetUri",
    "terminatePostUri",
    "suspendPostUri",
    "resumePostUri",
    "rewindPostUri",
    "restartPostUri",
)


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _object(needed: Mapping[str, object], optional: Mapping[str, object] | None = None, text: str = "") -> Schema:
    described = {"description": text} if text else {}
    return {"type": "object", "properties": {**needed, **(optional or {})}, "required": list(needed), **described}


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items}


_EVENT: Final = _object({"EventType": _STRING, "Timestamp": _STRING}, text="An event of a history; more by its type.")

SCHEMAS: Final[Mapping[str, Schema]] = MappingProxyType(
    {
        "Error": _object({"Message": _STRING}, {"ExceptionMessage": _STRING, "ExceptionType": _STRING}),
        "ManagementPayload": _object({"id": _STRING, **dict.fromkeys(_URLS, _STRING)}),
        "Status": _object(
            {
                "name": _STRING,
                "instanceId": _STRING,
                "runtimeStatus": _STATUS,
                "input": {"description": "null also if it is hidden"},
                "customStatus": _ANY,
                "output": {
                    "description": "of a failed instance, its error as a text; of what is suspended, terminated or "
                    "cancelled, the reason"
                },
                "createdTime": _SECOND,
                "lastUpdatedTime": _SECOND,
            },
            {
                "historyEvents": {**_list(_EVENT), "description": "with `showHistory`; completions are folded"},
                "parked": {**_object({"reason": _STRING}), "description": "only of what waits for an operator"},
            },
        ),
        "StatusOrError": {"anyOf": [_ref("Status"), _ref("Error")]},
        "Statuses": _list(_ref("Status")),
        "LiveUpdate": _object({"event": {"const": "status"}, "data": {"type": "string", "contentMediaType": JSON}}),
        "Counts": {
            "type": "object",
            "propertyNames": _STATUS,
            "additionalProperties": {"type": "integer", "minimum": 1},
        },
        "Purged": _object({"instancesDeleted": {"type": "integer", "minimum": 1}}),
        "Event": _EVENT,
        "History": _list(_ref("Event")),
        "Entity": _object({"entityId": _ENTITY_ID, "lastOperationTime": _SECOND}, {"state": _ANY}),
        "Entities": _list(_ref("Entity")),
        "Lock": _object({"lockedBy": _HOLDER, "waiting": _list(_HOLDER)}),
        "BrokenLock": _object({"lockedBy": _HOLDER}),
    }
)
