"""Checks of user functions when they are decorated, with the fix in the message."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from holdfast.errors import ConfigurationError
from holdfast.model.refs import Entity, EntityClass, Operation

_PLAIN = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def activity_input(function: Callable[..., Any], name: str) -> str | None:
    """Return the name of an activity's input parameter, or None if it takes none.

    Raises:
        ConfigurationError: for more than one parameter, and for what is no function.
    """
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise ConfigurationError(f"Activity {name!r} yields; an activity returns its result, as a list for example.")
    return _input_parameter(function, f"Activity {name!r}", leading=0)


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
    return _input_parameter(function, f"Orchestrator {name!r}", leading=1)


def entity_class(cls: type[Any], name: str) -> EntityClass:
    """Return an entity class with its operations: its public methods.

    Raises:
        ConfigurationError: if it cannot be made without arguments, or an operation cannot be one.
    """
    if not issubclass(cls, Entity):
        raise ConfigurationError(f"Entity {name!r} must derive from holdfast.Entity: class {cls.__name__}(Entity).")
    try:
        cls()
    except TypeError as error:
        raise ConfigurationError(
            f"Entity {name!r} cannot be made without arguments ({error}); give each field a default: it is the state "
            "of an entity that nobody has used yet."
        ) from error
    operations: dict[str, Operation] = {}
    for attribute, function in inspect.getmembers(cls, inspect.isfunction):
        if attribute.startswith("_"):
            continue
        subject = f"Operation {attribute!r} of entity {name!r}"
        if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
            raise ConfigurationError(
                f"{subject} is `async def`; operations cannot wait. Let an activity do the waiting."
            )
        parameter = _input_parameter(function, subject, leading=1)
        required = parameter is not None and (
            inspect.signature(function).parameters[parameter].default is inspect.Parameter.empty
        )
        if attribute.lower() in operations:
            raise ConfigurationError(f"{subject} differs from another operation only by case.")
        operations[attribute.lower()] = Operation(attribute, function, parameter, required)
    return EntityClass(name, cls, operations)


def _input_parameter(function: Callable[..., Any], subject: str, leading: int) -> str | None:
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"{subject} is not a function that can be looked into: {function!r}.") from error
    for parameter in parameters:
        if parameter.kind not in _PLAIN:
            raise ConfigurationError(
                f"{subject} has the parameter {str(parameter)!r}; it takes one positional input and nothing else."
            )
    expected = "ctx and at most one input" if leading else "at most one input"
    if len(parameters) < leading:
        raise ConfigurationError(f"{subject} takes no parameter; it needs {expected}.")
    if len(parameters) > leading + 1:
        names = ", ".join(parameter.name for parameter in parameters)
        raise ConfigurationError(
            f"{subject} has {len(parameters)} parameters ({names}); it can have {expected}. "
            "Put several values into one dataclass."
        )
    return parameters[leading].name if len(parameters) > leading else None
