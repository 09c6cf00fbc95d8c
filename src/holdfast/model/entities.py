"""Entities as the app defines them: classes with operations, or functions that are given a context."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Final, TypeAlias

from holdfast.errors import InvalidInputError, VersionMismatchError
from holdfast.model.converter import DataConverter
from holdfast.model.refs import FunctionReference

UpgradeState: TypeAlias = Callable[[Any, int], Any]
"""Called with a state as plain JSON values and the version that it was stored with; returns it as it is today."""

FIRST_VERSION: Final = 1


class Operation(FunctionReference):
    """One operation of an entity class: a public method."""

    def __init__(self, name: str, function: Callable[..., Any], input_parameter: str | None, required: bool) -> None:
        super().__init__(name, function, input_parameter)
        self.input_required = required
        self.is_async = inspect.iscoroutinefunction(function)


class EntityClass:
    """A registered entity class, with its operations by name in lower case."""

    def __init__(
        self,
        name: str,
        cls: type[Any],
        operations: Mapping[str, Operation],
        *,
        state_version: int = FIRST_VERSION,
        upgrade_state: UpgradeState | None = None,
    ) -> None:
        self.name = name
        self.cls = cls
        self.operations = operations
        self.state_version = state_version
        self.upgrade_state = upgrade_state

    @property
    def state_type(self) -> Any:
        return self.cls

    def is_async(self, operation: str) -> bool:
        """Whether an operation may wait."""
        found = self.operations.get(operation.lower())
        return found is not None and found.is_async

    def new_state(self) -> Any:
        """Return the state of an entity that nobody has used yet."""
        state = self.cls()
        initialize = getattr(state, "initialize", None)
        if initialize is not None:
            initialize()
        return state


class EntityFunction(FunctionReference):
    """A registered entity function, which is called with an `EntityContext` for each operation.

    Made by `@app.entity`. `EntityId` takes it like a class; it can still be called like the function that it wraps.
    """

    def __init__(
        self,
        name: str,
        function: Callable[..., Any],
        input_parameter: str | None,
        *,
        input_required: bool = True,
        state_version: int = FIRST_VERSION,
        upgrade_state: UpgradeState | None = None,
    ) -> None:
        super().__init__(name, function, input_parameter)
        self.input_required = self.has_input and input_required
        self.state_version = state_version
        self.upgrade_state = upgrade_state

    @property
    def __entity_class__(self) -> EntityFunction:
        return self

    @property
    def state_type(self) -> Any:
        return Any

    @property
    def operations(self) -> Mapping[str, Operation]:
        """None are known: the function looks at the name itself."""
        return {}

    def is_async(self, operation: str) -> bool:
        """Whether an operation may wait: all of them may, if the function is `async def`."""
        return inspect.iscoroutinefunction(self.function)

    def __call__(self, *args: Any) -> Any:
        return self.function(*args)


EntityDefinition: TypeAlias = EntityClass | EntityFunction


def current_state(entity: EntityDefinition, state: str, stored_version: str | None, converter: DataConverter) -> str:
    """Return a stored state as JSON that the entity's code of today can read.

    Raises:
        VersionMismatchError: if the state is of a version that the code does not know, or its upgrade fails.
    """
    version = FIRST_VERSION if stored_version is None else int(stored_version)
    if version == entity.state_version:
        return state
    if version > entity.state_version or entity.upgrade_state is None:
        raise VersionMismatchError(
            f"The state of an entity {entity.name!r} is stored in version {version}; this app has version "
            f"{entity.state_version}"
            + (" and no upgrade_state function." if version < entity.state_version else ", which is older.")
        )
    try:
        return converter.encode(entity.upgrade_state(converter.decode(state, Any), version))
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise VersionMismatchError(
            f"The state of an entity {entity.name!r}, stored in version {version}, cannot be upgraded to version "
            f"{entity.state_version}: {error!r}"
        ) from error


def check_operation(entity: EntityDefinition, operation: str) -> Operation | None:
    """Return what is known of an operation; None for `delete` and for the operations of a function.

    Raises:
        InvalidInputError: if the entity has no such operation.
    """
    found = entity.operations.get(operation.lower())
    if found is None and isinstance(entity, EntityClass) and operation.lower() != "delete":
        known = ", ".join(sorted([*entity.operations, "delete"]))
        raise InvalidInputError(f"Entity {entity.name!r} has no operation {operation!r}; it has {known}.")
    return found


def operation_name(operation: Callable[..., Any] | str, entity: EntityDefinition | None = None) -> str:
    """Return the name of an operation that is given by name or as an unbound method.

    Raises:
        InvalidInputError: if it is neither, or not a public one, or the method of another class than the entity's.
    """
    name = operation if isinstance(operation, str) else getattr(operation, "__name__", "")
    if not name or name.startswith("_") or len(name) > 256 or not name.isprintable():
        raise InvalidInputError(
            f"{str(operation)[:60]!r} is not the operation of an entity; pass Counter.add, or its name."
        )
    if isinstance(entity, EntityClass) and not isinstance(operation, str):
        found = entity.operations.get(name.lower())
        if found is not None and found.function is not operation:
            raise InvalidInputError(
                f"{getattr(operation, '__qualname__', name)} is no operation of entity {entity.name!r}, which has "
                "another of that name."
            )
    return name


class Entity:
    """Base of entity classes: the fields are the state, the public methods the operations.

    A subclass must be constructible without arguments (that is a new entity's state); make it a dataclass. A method
    `initialize(self)`, which is no operation, is called after that, and may ask `entity_context()` who it is.
    """

    __entity_class__: ClassVar[EntityClass | None] = None
    """Set by `@app.entity`."""
