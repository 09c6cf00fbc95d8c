"""Typed references: what the decorators return and the calls take. Made once, when the module is imported."""

from __future__ import annotations

import functools
import typing
from collections.abc import Callable, Coroutine, Generator
from datetime import timedelta
from typing import Any, Final, Generic, Literal, TypeAlias, TypeVar, overload

from holdfast.errors import ConfigurationError, InvalidInputError, PayloadError
from holdfast.model.converter import DataConverter
from holdfast.model.options import ActivityOptions
from holdfast.model.task_policy import policy_of

I_contra = TypeVar("I_contra", contravariant=True)
O_co = TypeVar("O_co", covariant=True)
T = TypeVar("T")

Body: TypeAlias = Coroutine[Any, Any, T] | Generator[Any, Any, T]
"""What an orchestrator function returns: `async def`, or a generator that yields durable tasks."""

RunsIn: TypeAlias = Literal["loop", "thread", "process"]


HTTP_ACTIVITY: Final = "BuiltIn::HttpActivity"
"""The name in histories of the activity that sends the requests of `ctx.call_http`."""


class FunctionReference:
    """A function with its name and the types at its boundary, which are resolved on first use.

    Annotations are read late because they may name classes that are defined below the function.
    """

    def __init__(self, name: str, function: Callable[..., Any], input_parameter: str | None) -> None:
        self.name = name
        self.function = function
        self.input_parameter = input_parameter
        self.input_required = input_parameter is not None
        self.has_input = input_parameter is not None
        self.__name__ = getattr(function, "__name__", name)
        self.__doc__ = function.__doc__
        self.__wrapped__ = function

    @functools.cached_property
    def input_type(self) -> Any:
        """The annotation of the input parameter; `Any` if it has none."""
        return self._types[0]

    @functools.cached_property
    def output_type(self) -> Any:
        """The annotation of the result; `Any` if it has none."""
        return self._types[1]

    @functools.cached_property
    def _types(self) -> tuple[Any, Any]:
        try:
            hints = typing.get_type_hints(self.function, include_extras=True)
        except NameError as error:
            raise ConfigurationError(
                f"The annotations of {self.name!r} name {error.name!r}, which its module does not have at run "
                "time. They decode the payloads: import it outside `if TYPE_CHECKING`."
            ) from error
        returned = hints.get("return", Any)
        if typing.get_origin(returned) in _GENERATORS and len(typing.get_args(returned)) == 3:
            returned = typing.get_args(returned)[2]
        return hints.get(self.input_parameter or "", Any), returned

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}>"


_GENERATORS = (typing.get_origin(Generator[Any, Any, Any]),)


class Activity(FunctionReference, Generic[I_contra, O_co]):
    """A registered activity: a function that does the real work, at least once for each call.

    Made by `@app.activity`; `AsyncActivity` and `SyncActivity` can still be called like the function they wrap.
    """

    def __init__(
        self,
        name: str,
        function: Callable[..., Any],
        input_parameter: str | None,
        *,
        runs_in: RunsIn = "loop",
        speculative: bool = False,
        transactional: bool = False,
        options: ActivityOptions | None = None,
    ) -> None:
        super().__init__(name, function, input_parameter)
        self.runs_in: RunsIn = runs_in
        self.speculative = speculative
        self.transactional = transactional
        self.options: ActivityOptions = options or {}
        self.policy = policy_of(self.options, speculative=speculative)
        """How calls without options of their own are run."""
        self.tags = self.options.get("tags") or {}
        self.version = self.options.get("version")
        """Which of several functions of its name it is; one without a version runs all that have none of their own."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)


class AsyncActivity(Activity[I_contra, O_co]):
    """An activity written as `async def`; it runs on the event loop."""

    @overload
    def __call__(self: AsyncActivity[None, T], /) -> Coroutine[Any, Any, T]: ...
    @overload
    def __call__(self, input: I_contra, /) -> Coroutine[Any, Any, O_co]: ...
    def __call__(self, *args: Any) -> Any:
        return self.function(*args)


class SyncActivity(Activity[I_contra, O_co]):
    """An activity written as `def`; it runs in a thread, or in a process on demand."""

    @overload
    def __call__(self: SyncActivity[None, T], /) -> T: ...
    @overload
    def __call__(self, input: I_contra, /) -> O_co: ...
    def __call__(self, *args: Any) -> Any:
        return self.function(*args)


class Orchestrator(FunctionReference, Generic[I_contra, O_co]):
    """A registered orchestrator: deterministic code that coordinates. Made by `@app.orchestrator`.

    One with a `version` runs the instances of exactly that version; one without runs all that have none of their own.
    """

    def __init__(
        self,
        name: str,
        function: Callable[..., Any],
        input_parameter: str | None,
        *,
        version: str | None = None,
        retention: timedelta | None = None,
    ) -> None:
        super().__init__(name, function, input_parameter)
        self.version = version
        self.retention = retention

    def __call__(self, *args: Any) -> Any:
        """Call the undecorated function, as a unit test with a context of its own does."""
        return self.function(*args)


class ExternalEvent(Generic[T]):
    """The name of an external event together with the type of its payload; senders and receivers share it."""

    __slots__ = ("name", "payload_type")

    def __init__(self, name: str, payload_type: type[T]) -> None:
        self.name = validate_event_name(name)
        self.payload_type = payload_type

    def __repr__(self) -> str:
        return f"ExternalEvent({self.name!r}, {self.payload_type.__name__})"


def validate_event_name(name: str) -> str:
    """Return an external event's name unchanged, if it is one: 1 to 256 printable characters.

    Raises:
        InvalidInputError: otherwise.
    """
    if not isinstance(name, str) or not name or len(name) > 256 or not name.isprintable():  # pyright: ignore[reportUnnecessaryIsInstance] - callers may be untyped
        raise InvalidInputError(f"{name!r} cannot name an external event; use 1 to 256 printable characters.")
    return name


class NoInput:
    """Marks a call without an input, which differs from a call with None."""


NO_INPUT = NoInput()


def encode_input(converter: DataConverter, function: FunctionReference | None, input: object) -> str | None:
    """Return the input of a call as JSON, or None if there is none; a function that needs one gets null.

    Args:
        function: None if it is known by name only, so that nothing is known about its input.

    Raises:
        PayloadError: if the input cannot be encoded.
        InvalidInputError: if the function takes no input.
    """
    if function is not None and not function.has_input:
        if not isinstance(input, NoInput | None):
            raise InvalidInputError(f"{function!r} takes no input; it got {type(input).__name__}.")
        return None
    if isinstance(input, NoInput):
        return None if function is None else converter.encode(None)
    return converter.encode(input)


def decode_input(converter: DataConverter, function: FunctionReference, input: str | None) -> Any:
    """Return the input of a function as a value of the type that it declares; a missing input counts as null.

    Raises:
        PayloadError: naming the function.
    """
    try:
        return converter.decode("null" if input is None else input, function.input_type)
    except PayloadError as error:
        what = "needs an input" if input is None else "got an input that it cannot take"
        raise PayloadError(f"{function.name!r} {what}. {error}") from error


def validate_name(name: str) -> str:
    """Return the name of a function, a handler or a patch unchanged, if it can be one: 1 to 256 printable characters.

    Raises:
        InvalidInputError: otherwise.
    """
    if not isinstance(name, str) or not name or len(name) > 256 or not name.isprintable():  # pyright: ignore[reportUnnecessaryIsInstance] - callers may be untyped
        raise InvalidInputError(f"{name!r:.60} is no name of a function or a patch; use 1 to 256 printable characters.")
    return name
