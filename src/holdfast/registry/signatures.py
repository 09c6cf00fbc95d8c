"""Checks of user functions when they are decorated, with the fix in the message."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from holdfast.codec.converter import JsonConverter
from holdfast.errors import ConfigurationError, InvalidInstanceIdError, PayloadError
from holdfast.model.entities import Entity, EntityClass, EntityFunction, Operation, UpgradeState
from holdfast.model.ids import EntityId
from holdfast.model.limits import Limits

_PLAIN = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def activity_input(function: Callable[..., Any], name: str) -> str | None:
    """Return the name of an activity's input parameter, or None if it takes none.

    Raises:
        ConfigurationError: for more than one parameter, and for what is no function.
    """
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise ConfigurationError(f"Activity {name!r} yields; an activity returns its result, as a list for example.")
    return _input_parameter(function, f"Activity {name!r}")


def check_importable(function: Callable[..., Any], name: str) -> None:
    """Raise ConfigurationError if another process could not find a function by its name."""
    if not inspect.isfunction(function) or "<" in function.__qualname__:
        raise ConfigurationError(
            f"Activity {name!r} runs in a process of its own, which must find it by name; "
            "define it with `def` at the top level of a module."
        )


def orchestrator_input(function: Callable[..., Any], name: str) -> str | None:
    """Return the name of an orchestrator's input parameter, which follows the context, or None if it takes none.

    Raises:
        ConfigurationError: for anything but `(ctx)` or `(ctx, input)`, and for an async generator.
    """
    if inspect.isasyncgenfunction(function):
        raise ConfigurationError(
            f"Orchestrator {name!r} is an async generator. "
            "Write it as `async def` with `await`, or as `def` with `yield`."
        )
    return _input_parameter(function, f"Orchestrator {name!r}", "ctx")


def entity_class(cls: type[Any], name: str, state_version: int, upgrade: UpgradeState | None) -> EntityClass:
    """Return an entity class with its operations: its public methods, but for `initialize`.

    Raises:
        ConfigurationError: if it cannot be made without arguments, or an operation cannot be one.
    """
    if not issubclass(cls, Entity):
        raise ConfigurationError(f"Entity {name!r} must derive from holdfast.Entity: class {cls.__name__}(Entity).")
    try:
        JsonConverter(payload_bytes_max=Limits().payload_bytes_max).encode(cls())
    except TypeError as error:
        raise ConfigurationError(
            f"Entity {name!r} cannot be made without arguments ({error}); give each field a default: it is the state "
            "of an entity that nobody has used yet."
        ) from error
    except PayloadError as error:
        raise ConfigurationError(
            f"The fields of entity {name!r} cannot be stored: {error} Write @dataclass below @app.entity."
        ) from error
    operations: dict[str, Operation] = {}
    for attribute, function in inspect.getmembers(cls, inspect.isfunction):
        if isinstance(inspect.getattr_static(cls, attribute), staticmethod):
            continue
        if attribute == "initialize":
            _check_initialize(function, name)
        elif not attribute.startswith("_"):
            operation = _operation(attribute, function, f"Operation {attribute!r} of entity {name!r}")
            if operations.setdefault(attribute.lower(), operation) is not operation:
                raise ConfigurationError(
                    f"Operation {attribute!r} of entity {name!r} differs from another operation only by case."
                )
    return EntityClass(name, cls, operations, state_version=state_version, upgrade_state=upgrade)


def _check_initialize(function: Callable[..., Any], name: str) -> None:
    if inspect.iscoroutinefunction(function) or len(inspect.signature(function).parameters) != 1:
        raise ConfigurationError(f"The method initialize of entity {name!r} must be `def initialize(self)`.")


def _operation(attribute: str, function: Callable[..., Any], subject: str) -> Operation:
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise ConfigurationError(f"{subject} yields; an operation is a `def` or an `async def` that returns.")
    parameter = _input_parameter(function, subject, "self")
    return Operation(attribute, function, parameter, _is_required(function, parameter))


def _is_required(function: Callable[..., Any], parameter: str | None) -> bool:
    """Whether a function has an input that has no default."""
    if parameter is None:
        return False
    return inspect.signature(function).parameters[parameter].default is inspect.Parameter.empty


def entity_function(
    function: Callable[..., Any], name: str, state_version: int, upgrade: UpgradeState | None
) -> EntityFunction:
    """Return an entity function: `(ctx)` or `(ctx, input)`.

    Raises:
        ConfigurationError: for anything else.
    """
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise ConfigurationError(f"Entity {name!r} yields; it is a `def` or an `async def` that returns.")
    parameter = _input_parameter(function, f"Entity {name!r}", "ctx")
    return EntityFunction(
        name,
        function,
        parameter,
        input_required=_is_required(function, parameter),
        state_version=state_version,
        upgrade_state=upgrade,
    )


def check_entity(definition: object, name: str | None) -> None:
    """Raise ConfigurationError for what is no class or function, or could not be addressed by its name."""
    if not callable(definition) or not hasattr(definition, "__name__"):
        raise ConfigurationError(
            f"@app.entity is for a class or a function; it got {definition!r:.60}. A name is given as name=..."
        )
    try:
        EntityId(name or str(getattr(definition, "__name__")), "key")  # noqa: B009 - the type does not say that it is there
    except InvalidInstanceIdError as error:
        raise ConfigurationError(f"An entity must have a name by which it can be addressed. {error}") from error


def check_state_version(state_version: object, upgrade: object, name: str) -> None:
    """Raise ConfigurationError for a version of an entity's state that is no whole number, or lacks its upgrade."""
    if isinstance(state_version, bool) or not isinstance(state_version, int) or state_version < 1:
        raise ConfigurationError(f"state_version={state_version!r} of entity {name!r} must be 1, 2, 3...")
    if upgrade is not None and (not callable(upgrade) or inspect.iscoroutinefunction(upgrade)):
        raise ConfigurationError(f"upgrade_state of entity {name!r} must be a `def upgrade(state, version)`.")
    if (state_version > 1) != (upgrade is not None):
        raise ConfigurationError(
            f"Entity {name!r} has state_version={state_version} and "
            + ("no upgrade_state" if upgrade is None else "an upgrade_state")
            + "; the first version is 1, and each later one needs upgrade_state=function(state, version)."
        )


def _input_parameter(function: Callable[..., Any], subject: str, first: str | None = None) -> str | None:
    """Return the name of the parameter for the input, which follows `first` if there is one."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"{subject} is not a function that can be looked into: {function!r}.") from error
    for parameter in parameters:
        if parameter.kind not in _PLAIN:
            raise ConfigurationError(
                f"{subject} has the parameter {str(parameter)!r}; it takes one positional input and nothing else."
            )
    leading = 0 if first is None else 1
    expected = "at most one input" if first is None else f"{first} and at most one input"
    if len(parameters) < leading:
        raise ConfigurationError(f"{subject} takes no parameter; it needs {expected}.")
    if len(parameters) > leading + 1:
        names = ", ".join(parameter.name for parameter in parameters)
        raise ConfigurationError(
            f"{subject} has {len(parameters)} parameters ({names}); it can have {expected}. "
            "Put several values into one dataclass."
        )
    return parameters[leading].name if len(parameters) > leading else None
