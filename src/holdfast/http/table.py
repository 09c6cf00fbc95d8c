"""The table of all endpoints of the management API."""

from __future__ import annotations

from typing import Final

from holdfast.http.operations import Operation
from holdfast.http.table_entities import ENTITY_OPERATIONS
from holdfast.http.table_instances import INSTANCE_OPERATIONS
from holdfast.http.table_links import LINK_OPERATIONS
from holdfast.http.table_steering import STEERING_OPERATIONS

OPERATIONS: Final[tuple[Operation, ...]] = (*INSTANCE_OPERATIONS, *STEERING_OPERATIONS, *ENTITY_OPERATIONS)
"""In the order in which requests are matched: a fixed path stands before one that has a name in its place."""

DOCUMENTED: Final[tuple[Operation, ...]] = (*OPERATIONS, *LINK_OPERATIONS)
"""What the OpenAPI document has."""
