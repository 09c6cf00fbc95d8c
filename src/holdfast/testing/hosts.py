"""Simulated hosts: processes that run an app on the one store, die, and are started again."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Callable, Generator
from datetime import datetime, timedelta
from typing import Any, Final

from holdfast.codec.converter import JsonConverter
from holdfast.engine.activity_context import activity_context
from holdfast.engine.config import HostConfig
from holdfast.engine.engine import Engine
from holdfast.engine.node import Node
from holdfast.engine.task_hub import LocalTaskHub
from holdfast.errors import HostStoppedError, OverloadedError, StorageError
from holdfast.model.ids import NewId
from holdfast.model.refs import Activity
from holdfast.registry.registry import Registry
from holdfast.testing.bodies import ActivityBodies
from holdfast.testing.faults import Trouble
from holdfast.testing.http import SimulatedBuiltins
from holdfast.testing.loop import InvariantViolation, Process, SimulatedLoop
from holdfast.testing.store import Database

_RESTART_US: Final = (10_000, 3_000_000)
_TRY_AGAIN: Final = (0.6, 1.8)
_OFTEN_S: Final = 5.0
_LONGER_MAX: Final = 6
_SLOW_US: Final = (500_000, 10_000_000)


class SimulatedClock:
    """The wall clock of one host, which may be set."""

    def __init__(self, loop: SimulatedLoop, begins_at: datetime) -> None:
        self._loop = loop
        self._begins_at = begins_at
        self.offset_us = 0

    def now(self) -> datetime:
        return self._begins_at + timedelta(microseconds=self._loop.now_us + self.offset_us)


class _WatchedEngine(Engine):
    """An engine whose internal errors end the simulation; in the world it would start again and go on."""

    internal_error: Callable[[BaseException], None]

    def note_failure(self, error: Exception) -> None:
        super().note_failure(error)
        if not isinstance(error, StorageError):
            self.internal_error(error)


class SimulatedHost:
    """One host after the other under one name: when its process ends, it is started again."""

    def __init__(
        self,
        name: str,
        loop: SimulatedLoop,
        database: Database,
        trouble: Trouble,
        clock: SimulatedClock,
        new_id: NewId,
        config: HostConfig,
        registry: Callable[[], Registry],
        bodies: ActivityBodies,
        idle_s: float,
    ) -> None:
        self.name = name
        self.clock = clock
        self.process: Process | None = None
        self.task_hub: LocalTaskHub | None = None
        """None while it starts, or has no right to the store."""
        self.starts = 0
        self._engine: Engine | None = None
        self._loop = loop
        self._database = database
        self._trouble = trouble
        self._new_id = new_id
        self._config = config
        self._registry = registry
        self._bodies = bodies
        self._idle_s = idle_s
        self._tries = (0, 0)
        self._is_over = False
        self._attempts: set[tuple[str, int, int]] = set()
        self._job = loop.create_task(self._live())

    @property
    def node(self) -> Node | None:
        """What the engine has in memory, if it is at work."""
        try:
            return None if self._engine is None else self._engine.node
        except (HostStoppedError, OverloadedError):
            return None

    @property
    def is_ready(self) -> bool:
        """Whether a request reaches it; a paused one answers later."""
        return self.task_hub is not None and self.process is not None and self.process.is_alive

    @property
    def is_idle(self) -> bool:
        """Whether nothing is going on in it that ends by itself."""
        return self._engine is not None and self._engine.is_quiet

    async def stop(self) -> None:
        """Let the host stop in good order; it is started again unless the simulation is over."""
        process, engine = self.process, self._engine
        if process is None or not process.is_alive:
            return
        ended = _end_of(process)
        if engine is None:
            process.kill()
        else:
            process.start(engine.stop())
        await ended

    async def end(self) -> None:
        """Stop, and stay so."""
        self._is_over = True
        await self.stop()
        await self._job

    async def _live(self) -> None:
        while not self._is_over:
            process = self.process = self._loop.process(self.name)
            ended = _end_of(process)
            main = process.start(self._main(process))
            main.add_done_callback(functools.partial(self._ended, process))
            self.starts += 1
            self._attempts = set()
            await ended
            pause_us = self._try_again_us() if self._engine is None else _RESTART_US
            self._engine = self.task_hub = None
            if not self._is_over:
                await asyncio.sleep(self._trouble.between(*pause_us) / 1e6)

    def _ended(self, process: Process, main: asyncio.Task[None]) -> None:
        error = None if main.cancelled() else main.exception()
        if error is not None:
            self._broke(error)
        process.kill()

    def _broke(self, error: BaseException) -> None:
        violation = InvariantViolation("no internal errors", f"{self.name}: {error!r}")
        violation.__cause__ = error
        self._loop.violated(violation)

    def _try_again_us(self) -> tuple[int, int]:
        """Return how long to wait before asking for the store again; ever longer, while nothing goes wrong."""
        struck = len(self._trouble.happened)
        count, struck_before = self._tries
        self._tries = (count + 1 if struck == struck_before else 0, struck)
        longer = 2 ** min(count, _LONGER_MAX) if self._idle_s > _OFTEN_S else 1
        low, high = _TRY_AGAIN
        return int(low * self._idle_s * longer * 1e6), int(high * self._idle_s * longer * 1e6)

    async def _main(self, process: Process) -> None:
        engine = _WatchedEngine(
            self._registry().with_activities(functools.partial(self._simulated, process)),
            self._database.connect(process),
            JsonConverter(payload_bytes_max=self._config.limits.payload_bytes_max),
            self._config,
            self.clock,
            self._new_id,
        )
        engine.builtins = SimulatedBuiltins(functools.partial(self._simulated, process))
        engine.internal_error = self._broke
        task_hub = LocalTaskHub(engine)
        try:
            await engine.start()
        except StorageError:
            return
        self._engine, self.task_hub = engine, task_hub
        try:
            await engine.wait_stopped()
        except StorageError:
            return

    def _simulated(self, process: Process, activity: Activity[Any, Any]) -> Activity[Any, Any]:
        """Return an activity that runs in the simulation: nothing of it leaves the loop, but what its code does."""

        @functools.wraps(activity.function)
        async def run(*arguments: Any) -> Any:
            with self._alone(activity):
                return await run_alone(*arguments)

        async def run_alone(*arguments: Any) -> Any:
            await self._begin(activity)
            dies = self._trouble.happens("activity_kills", self._trouble.faults.activity_kills)
            if dies and self._trouble.coin():
                await _die(process)
            result = await self._bodies.run(activity, arguments)
            if dies:
                await _die(process)
            return result

        return type(activity)(
            activity.name,
            run,
            activity.input_parameter,
            runs_in="loop",
            speculative=activity.speculative,
            options=activity.options,
        )

    @contextlib.contextmanager
    def _alone(self, activity: Activity[Any, Any]) -> Generator[None]:
        """Hold that a host does not run one attempt twice at the same time."""
        context, attempts = activity_context(), self._attempts
        attempt = (context.execution_id, context.sequence, context.attempt)
        if attempt in attempts:
            self._loop.violated(
                InvariantViolation("one attempt at a time", f"{activity.name!r} {attempt} runs already")
            )
        attempts.add(attempt)
        try:
            yield
        finally:
            attempts.discard(attempt)

    async def _begin(self, activity: Activity[Any, Any]) -> None:
        context = activity_context()
        key = (context.execution_id, context.sequence)
        if not activity.speculative and self._database.ledger.attempts.get(key, 0) < context.attempt:
            # Raised here, it would be the failure of the activity.
            violation = InvariantViolation(
                "starts have causes",
                f"attempt {context.attempt} of {activity.name!r} {key} of {context.instance_id!r} starts, and nothing "
                "durable says so",
            )
            self._loop.violated(violation)
        if self._trouble.happens("activity_slow", self._trouble.faults.activity_slow):
            await asyncio.sleep(self._trouble.between(*_SLOW_US) / 1e6)


async def _die(process: Process) -> None:
    process.kill()
    await asyncio.get_running_loop().create_future()


def _end_of(process: Process) -> asyncio.Future[None]:
    ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    process.died.append(lambda: ended.set_result(None))
    return ended
