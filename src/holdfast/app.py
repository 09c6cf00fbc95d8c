"""The app: decorators that turn functions into activities, orchestrators, entities and HTTP functions."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Concatenate, Literal, Protocol, TypeVar, Unpack, cast, overload

from holdfast.errors import ConfigurationError, InvalidInputError
from holdfast.model.entities import Entity, EntityFunction, UpgradeState
from holdfast.model.limits import Limits
from holdfast.model.options import ActivityOptions, check_activity_options, check_version
from holdfast.model.refs import Activity, AsyncActivity, Body, Orchestrator, RunsIn, SyncActivity
from holdfast.model.requests import check_duration
from holdfast.registry.registry import Registry
from holdfast.registry.routes import Handler, Route
from holdfast.registry.signatures import (
    activity_input,
    check_entity,
    check_importable,
    check_state_version,
    entity_class,
    entity_function,
    orchestrator_input,
)

if TYPE_CHECKING:
    from holdfast.durable_http.caller import TokenSource
    from holdfast.engine.clock import Clock
    from holdfast.engine.config import HostConfig
    from holdfast.host import Host
    from holdfast.replay.context import OrchestrationContext
    from holdfast.replay.entity_context import EntityContext

I = TypeVar("I")  # noqa: E741 - input and output, as everywhere in the typed API
O = TypeVar("O")  # noqa: E741
E = TypeVar("E", bound=Entity)
H = TypeVar("H", bound=Handler)


class ActivityDecorator(Protocol):
    """`@app.activity(...)` with options."""

    @overload
    def __call__(  # type: ignore[overload-overlap]  # a coroutine function is also a function; the first match holds
        self, function: Callable[[I], Coroutine[Any, Any, O]], /
    ) -> AsyncActivity[I, O]: ...
    @overload
    def __call__(  # type: ignore[overload-overlap]  # as above
        self, function: Callable[[], Coroutine[Any, Any, O]], /
    ) -> AsyncActivity[None, O]: ...
    @overload
    def __call__(self, function: Callable[[I], O], /) -> SyncActivity[I, O]: ...
    @overload
    def __call__(self, function: Callable[[], O], /) -> SyncActivity[None, O]: ...


class OrchestratorDecorator(Protocol):
    """`@app.orchestrator(...)` with options."""

    @overload
    def __call__(self, function: Callable[[OrchestrationContext, I], Body[O]], /) -> Orchestrator[I, O]: ...
    @overload
    def __call__(self, function: Callable[[OrchestrationContext], Body[O]], /) -> Orchestrator[None, O]: ...


class EntityDecorator(Protocol):
    """`@app.entity(...)` with options."""

    @overload
    def __call__(  # pyright: ignore[reportOverlappingOverload] - a class is also a function; the first match holds
        self, definition: type[E], /
    ) -> type[E]: ...
    @overload
    def __call__(self, definition: Callable[Concatenate[EntityContext, ...], Any], /) -> EntityFunction: ...


class App:
    """A set of functions that belong together. An ordinary object: a program may have several."""

    def __init__(self) -> None:
        self.registry = Registry()
        self.routes: list[Route] = []
        self.token_sources: dict[str, TokenSource] = {}

    @overload
    def activity(  # type: ignore[overload-overlap]  # a coroutine function is also a function; the first match holds
        self, function: Callable[[I], Coroutine[Any, Any, O]], /
    ) -> AsyncActivity[I, O]: ...
    @overload
    def activity(  # type: ignore[overload-overlap]  # as above
        self, function: Callable[[], Coroutine[Any, Any, O]], /
    ) -> AsyncActivity[None, O]: ...
    @overload
    def activity(self, function: Callable[[I], O], /) -> SyncActivity[I, O]: ...
    @overload
    def activity(self, function: Callable[[], O], /) -> SyncActivity[None, O]: ...
    @overload
    def activity(
        self,
        /,
        *,
        name: str | None = None,
        process: bool = False,
        speculative: bool = False,
        transactional: bool = False,
        **options: Unpack[ActivityOptions],
    ) -> ActivityDecorator: ...
    def activity(
        self,
        function: Callable[..., Any] | None = None,
        /,
        *,
        name: str | None = None,
        process: bool = False,
        speculative: bool = False,
        transactional: bool = False,
        **options: Unpack[ActivityOptions],
    ) -> Any:
        """Register an activity: a function of at most one input, which runs at least once for each call.

        `async def` runs on the event loop, `def` in a thread; the function can still be called directly.

        Args:
            name: instead of the function's own name.
            process: run a `def` in a process of its own, for CPU-bound work. It must be importable by name.
            speculative: may start before the call is durable. Only for pure functions: after a crash it may turn out
                to have run although, for the orchestration, it was never called.
            transactional: run an `async def` in a transaction in the hub's PostgreSQL database. What it writes over
                `activity_context().connection` is committed together with its result: exactly once.
            options: `retry`, `timeout`, `start_timeout`, `heartbeat_timeout`, `tags`, `version`, `queue`; a call may
                override them. See `ActivityOptions`.

        Raises:
            ConfigurationError: saying what about the function or the options cannot be.
        """

        def register(function: Callable[..., Any]) -> Activity[Any, Any]:
            chosen = name or getattr(function, "__name__", "")
            is_async = inspect.iscoroutinefunction(function)
            if process and is_async:
                raise ConfigurationError(f"Activity {chosen!r} is `async def`; process=True is for plain `def`.")
            if transactional and (speculative or not is_async):
                raise ConfigurationError(
                    f"Activity {chosen!r} is transactional: it must be `async def`, not speculative."
                )
            if process:
                check_importable(function, chosen)
            try:
                check_activity_options(chosen, options, Limits().tags_max)
            except InvalidInputError as error:
                raise ConfigurationError(str(error)) from None
            runs_in: RunsIn = "loop" if is_async else "process" if process else "thread"
            cls = AsyncActivity[Any, Any] if is_async else SyncActivity[Any, Any]
            activity = cls(
                chosen,
                function,
                activity_input(function, chosen),
                runs_in=runs_in,
                speculative=speculative,
                transactional=transactional,
                options=options,
            )
            self.registry.add_activity(activity)
            return activity

        return register if function is None else register(function)

    @overload
    def orchestrator(self, function: Callable[[OrchestrationContext, I], Body[O]], /) -> Orchestrator[I, O]: ...
    @overload
    def orchestrator(self, function: Callable[[OrchestrationContext], Body[O]], /) -> Orchestrator[None, O]: ...
    @overload
    def orchestrator(
        self, /, *, name: str | None = None, version: str | None = None, retention: timedelta | None = None
    ) -> OrchestratorDecorator: ...
    def orchestrator(
        self,
        function: Callable[..., Any] | None = None,
        /,
        *,
        name: str | None = None,
        version: str | None = None,
        retention: timedelta | None = None,
    ) -> Any:
        """Register an orchestrator: `async def f(ctx)` or `f(ctx, input)`, or the same as a generator.

        It must be deterministic: whatever touches the outside world goes into activities.

        Args:
            name: instead of the function's own name.
            version: for the instances of exactly this version; functions of several versions share a name.
            retention: how long its instances are kept after they have ended, whatever the host's setting says.

        Raises:
            ConfigurationError: saying what about the function cannot be.
        """

        def register(function: Callable[..., Any]) -> Orchestrator[Any, Any]:
            chosen = name or getattr(function, "__name__", "")
            try:
                check_version(version)
                check_duration("retention", retention)
            except InvalidInputError as error:
                raise ConfigurationError(str(error)) from None
            parameter = orchestrator_input(function, chosen)
            orchestrator = Orchestrator[Any, Any](chosen, function, parameter, version=version, retention=retention)
            self.registry.add_orchestrator(orchestrator)
            return orchestrator

        return register if function is None else register(function)

    @overload
    def entity(  # pyright: ignore[reportOverlappingOverload] - as above
        self, definition: type[E], /
    ) -> type[E]: ...
    @overload
    def entity(self, definition: Callable[Concatenate[EntityContext, ...], Any], /) -> EntityFunction: ...
    @overload
    def entity(
        self,
        /,
        *,
        name: str | None = None,
        state_version: int = 1,
        upgrade_state: UpgradeState | None = None,
    ) -> EntityDecorator: ...
    def entity(
        self,
        definition: Any = None,
        /,
        *,
        name: str | None = None,
        state_version: int = 1,
        upgrade_state: UpgradeState | None = None,
    ) -> Any:
        """Register an entity: a class whose fields are the state and whose public methods are the operations; or a
        function `f(ctx)` or `f(ctx, input)`, called with an `EntityContext` for each operation.

        Operations run one at a time. One that is `async def` may wait, and may run again after a crash.

        Args:
            name: instead of the own name of the class or function; entity names are kept in lower case.
            state_version: to be raised when the code can no longer read the states that are stored.
            upgrade_state: called with an older state as plain JSON values and its version, when it is next used;
                returns the state as it is today. An entity that it fails for is parked.

        Raises:
            ConfigurationError: saying what about the class or the function cannot be.
        """

        def register(definition: Any) -> Any:
            check_entity(definition, name)
            chosen = (name or definition.__name__).lower()
            check_state_version(state_version, upgrade_state, chosen)
            if not isinstance(definition, type):
                function = entity_function(definition, chosen, state_version, upgrade_state)
                self.registry.add_entity(function)
                return function
            found = entity_class(definition, chosen, state_version, upgrade_state)
            self.registry.add_entity(found)
            setattr(definition, "__entity_class__", found)  # noqa: B010 - the type is not known to have it
            return definition

        return register if definition is None else register(definition)

    def route(
        self, path: str, *, methods: Sequence[str] = ("GET",), auth: Literal["key", "anonymous"] = "key"
    ) -> Callable[[H], H]:
        """Register an HTTP function: `async def handler(request, client)`, served below `/api`.

        It gets a Starlette request and the client, and returns a Starlette response or a value to be sent as JSON.

        Args:
            auth: "key" lets those in who have a key of any scope, if the host has keys; "anonymous" lets all in.

        Raises:
            ConfigurationError: if the path does not begin with a slash, or the handler is not `async def`.
        """
        if not path.startswith("/"):
            raise ConfigurationError(f"The route {path!r} must begin with a slash.")
        if auth not in ("key", "anonymous"):  # pyright: ignore[reportUnnecessaryContains] - callers may be untyped
            raise ConfigurationError(f"auth of route {path!r} is {auth!r}; it must be 'key' or 'anonymous'.")
        if isinstance(methods, str):
            raise ConfigurationError(f"methods of route {path!r} is one text; write methods=[{methods!r}].")

        def register(handler: H) -> H:
            if not inspect.iscoroutinefunction(handler) or len(inspect.signature(handler).parameters) != 2:
                raise ConfigurationError(f"The handler of route {path!r} must be `async def handler(request, client)`.")
            verbs = tuple(method.upper() for method in methods)
            taken = cast(Callable[[Any, Any], Awaitable[Any]], handler)
            self.routes.append(Route(path, verbs, taken, is_anonymous=auth == "anonymous"))
            return handler

        return register

    def token_source(self, name: str) -> Callable[[TokenSource], TokenSource]:
        """Register a function that gives bearer tokens to `ctx.call_http(..., token_source=name)`.

        `async def source(origin: str) -> str` is called when a request is sent, with its origin, such as
        `https://api.example.com`, so that it can refuse others; so no token is ever stored.

        Raises:
            ConfigurationError: if the name is taken, or the function is not `async def`.
        """

        def register(source: TokenSource) -> TokenSource:
            if name in self.token_sources or not inspect.iscoroutinefunction(source):
                raise ConfigurationError(
                    f"The token source {name!r} must be an `async def`, and have a name of its own."
                )
            self.token_sources[name] = source
            return source

        return register

    def host(
        self, store: str = "sqlite:///holdfast.db", *, config: HostConfig | None = None, clock: Clock | None = None
    ) -> Host:
        """Return a host for this app on a store, to be entered with `async with`.

        Args:
            store: `sqlite:///relative.db`, `sqlite:////absolute.db`, or `memory://`, which loses everything at the end.

        Raises:
            ConfigurationError: if there is no such kind of store.
        """
        # Here, not above: a program may define its app for others, such as `holdfast run`, and host nothing itself.
        from holdfast.engine.config import HostConfig
        from holdfast.host import Host
        from holdfast.storage.open_store import open_store

        return Host(
            self.registry,
            tuple(self.routes),
            dict(self.token_sources),
            open_store(store),
            config or HostConfig(),
            clock,
        )

    def check_replay(self, export: str, *, config: HostConfig | None = None) -> None:
        """Replay an exported history against the code of this app; return if it asks for just what it asked for then.

        One that has ended must end there again, with the same result or the same type of failure. For tests: keep what
        `Client.export_history` or `holdfast export-history` gave beside the code.

        Args:
            config: of the host that would run it; its limits and its version count.

        Raises:
            NonDeterminismError: with both sides of the first difference, and the line of code.
            NotRegisteredError: if the app has no orchestrator of its name.
            VersionMismatchError: if the app has no code for its version.
            CorruptRecordError: if the text is no exported history.
        """
        from holdfast.codec.exported import decode_exported
        from holdfast.engine.config import HostConfig
        from holdfast.engine.exports import check_replay

        check_replay(self.registry, decode_exported(export), config or HostConfig())
