"""Runs a batch of operations on one entity: each alone, each rolled back when it fails."""

from __future__ import annotations

from typing import Any

from holdfast.errors import InvalidInputError
from holdfast.model.converter import DataConverter
from holdfast.model.failure import failure_from_exception
from holdfast.model.refs import EntityClass, unknown_operation
from holdfast.model.work_items import EntityBatch, EntityOperation, EntityWorkItem, Failed, Outcome, Succeeded


def execute_entity(work_item: EntityWorkItem, entity: EntityClass, converter: DataConverter) -> EntityBatch:
    """Run the operations in order; the state after each is the one before it if it failed."""
    state = work_item.state
    current: Any = None
    outcomes: list[Outcome] = []
    for operation in work_item.operations:
        try:
            if current is None:
                current = _load(entity, state, converter)
            result, deleted = _run(entity, current, operation, converter)
            after = None if deleted else converter.encode(current)
            outcomes.append(Succeeded(result))
            state = after
            if deleted:
                current = None
        except Exception as error:
            outcomes.append(Failed(failure_from_exception(error)))
            current = None
    return EntityBatch(tuple(outcomes), state)


def _load(entity: EntityClass, state: str | None, converter: DataConverter) -> Any:
    return entity.cls() if state is None else converter.decode(state, entity.cls)


def _run(
    entity: EntityClass, current: Any, operation: EntityOperation, converter: DataConverter
) -> tuple[str | None, bool]:
    """Return the encoded result, and whether the entity is to be deleted."""
    name = operation.operation.lower()
    found = entity.operations.get(name)
    if found is None:
        if name == "delete":
            return "null", True
        raise unknown_operation(entity, operation.operation)
    arguments: list[Any] = []
    if found.input_parameter is not None:
        if operation.input is not None:
            arguments.append(converter.decode(operation.input, found.input_type))
        elif found.input_required:
            raise InvalidInputError(f"Operation {found.name!r} of entity {entity.name!r} needs an input.")
    result = getattr(current, found.name)(*arguments)
    return converter.encode(result), False
