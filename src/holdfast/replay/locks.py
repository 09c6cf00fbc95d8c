"""Critical sections as orchestrator code sees them, and the rules that make them free of deadlock."""

from __future__ import annotations

from collections.abc import Generator
from datetime import timedelta
from types import TracebackType
from typing import Any

from holdfast.errors import InvalidInputError, LockingRulesError, WaitTimeoutError
from holdfast.model.actions import SendEntityMessage
from holdfast.model.history import EntityLockRequested, EntityUnlockSent
from holdfast.model.ids import EntityId, address_of
from holdfast.model.instants import after
from holdfast.model.requests import check_duration
from holdfast.replay.open_tasks import OpenTask, OpenTasks
from holdfast.replay.orchestration import Execution
from holdfast.replay.tasks import DurableTask


class CriticalSection:
    """Exclusive use of some entities, between `async with` and its end.

    Inside, only the locked entities may be called, each by one call at a time; none of them may be signalled; and
    there are no nested sections and no sub-orchestrations. That, with one global order of locking, excludes deadlock.
    In a generator orchestrator: `yield section.acquire()`, and `section.release()` at the end.
    """

    def __init__(
        self,
        execution: Execution,
        locks: Locks,
        lock_set: tuple[str, ...],
        timeout: timedelta | None,
        lease: timedelta | None,
    ) -> None:
        self._execution = execution
        self._locks = locks
        self._timeout = timeout
        self._lease = lease
        self._id: str | None = None
        self._calling: dict[str, DurableTask[Any]] = {}
        self.lock_set = lock_set
        self.is_held = False

    def is_calling(self, target: str) -> bool:
        """Whether an entity has not answered its last call yet."""
        running = self._calling.get(target)
        return running is not None and not running.is_completed

    def calling(self, target: str, task: DurableTask[Any]) -> None:
        """Note a call of an entity."""
        self._calling[target] = task

    @property
    def section_id(self) -> str | None:
        """What names the section to the entities, from when the locks are asked for until they are given back."""
        return self._id

    def acquire(self) -> DurableTask[None]:
        """Ask for the locks; the task is completed once all are held, or raises `TimeoutError`.

        Raises:
            LockingRulesError: if the orchestration is in a critical section already.
        """
        execution = self._execution
        execution.check_usable()
        self._locks.enter(self)
        section_id = self._id = f"{execution.identity}/{self._locks.next_section()}"

        number = execution.asked.take_number()
        request = EntityLockRequested(
            timestamp=execution.clock(),
            event_id=number,
            critical_section_id=section_id,
            lock_set=self.lock_set,
            parent_instance_id=execution.instance_id,
            parent_execution_id=execution.identity,
            lease=self._lease,
        )
        execution.asked.append(SendEntityMessage(request))
        task = _LockTask(self, execution.open_tasks, number)
        execution.open_tasks.add(task)
        execution.open_tasks.add_request(section_id, number)
        task.observe(self._acquired)
        return task if self._timeout is None else self._limit(task, self._timeout)

    def _acquired(self, task: DurableTask[None]) -> None:
        self.is_held = not task.is_failed

    def _limit(self, request: DurableTask[None], timeout: timedelta) -> DurableTask[None]:
        """Race the request with a timer; whichever comes first takes the other back."""
        execution = self._execution
        timer = execution.create_timer(after(execution.clock(), timeout))
        task: DurableTask[None] = DurableTask(execution, request.cancel)
        locked = ", ".join(self.lock_set)

        def timed_out(timer: DurableTask[Any]) -> None:
            if not timer.is_cancelled:
                task.fail(lambda: WaitTimeoutError(f"The locks of {locked} were not free within {timeout}."))
                request.cancel()

        request.observe(lambda _: timer.cancel())
        request.observe(task.take_over)
        timer.observe(timed_out)
        return task

    def release(self) -> None:
        """Give all locks back; without effect if they are not held."""
        section_id, self._id = self._id, None
        self.is_held = False
        if section_id is None or self._execution.is_inert:
            return
        self._calling.clear()
        self._locks.leave()
        for target in self.lock_set:
            unlock = EntityUnlockSent(
                timestamp=self._execution.clock(),
                event_id=self._execution.asked.take_number(),
                critical_section_id=section_id,
                target_instance_id=target,
            )
            self._execution.asked.append(SendEntityMessage(unlock))

    async def __aenter__(self) -> CriticalSection:
        await self.acquire()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def __await__(self) -> Generator[DurableTask[Any], None, CriticalSection]:
        yield from self.acquire()
        return self


class _LockTask(OpenTask[None]):
    """The request for the locks of a section; whoever takes it back gives back what is held."""

    __slots__ = ("_section",)

    def __init__(self, section: CriticalSection, open_tasks: OpenTasks, number: int) -> None:
        super().__init__(open_tasks, number, None)
        self._section = section

    def take_back(self, execution: Execution) -> None:
        self._section.release()


class Locks:
    """Which critical section one execution is in, and what may be asked for meanwhile."""

    __slots__ = ("_section", "_sections")

    def __init__(self) -> None:
        self._section: CriticalSection | None = None
        self._sections = 0

    @property
    def is_locked(self) -> bool:
        return self._section is not None

    def section(
        self,
        execution: Execution,
        entities: tuple[EntityId[Any], ...],
        timeout: timedelta | None,
        lease: timedelta | None,
    ) -> CriticalSection:
        """Return a section over entities, each once, in the one order in which everybody locks.

        Raises:
            InvalidInputError: if there are none, or something else among them.
        """
        if not entities:
            raise InvalidInputError("ctx.lock() needs at least one EntityId.")
        check_duration("timeout", timeout)
        check_duration("lease", lease)
        lock_set = tuple(sorted({address_of(entity) for entity in entities}))
        return CriticalSection(execution, self, lock_set, timeout, lease)

    def next_section(self) -> int:
        self._sections += 1
        return self._sections

    def enter(self, section: CriticalSection) -> None:
        if self._section is not None:
            raise LockingRulesError(
                f"This orchestration is in a critical section over {', '.join(self._section.lock_set)} already; "
                "sections do not nest. Lock all entities at once: ctx.lock(a, b)."
            )
        self._section = section

    def leave(self) -> None:
        self._section = None

    @property
    def section_id(self) -> str | None:
        """The section whose locks are held or asked for."""
        return None if self._section is None else self._section.section_id

    def check_call(self, target: str) -> None:
        """Raise LockingRulesError if an entity may not be called now."""
        if self._section is None:
            return
        if not self._section.is_held:
            raise LockingRulesError(
                f"Entity {target} is called while the locks are still asked for; await them first: "
                "async with ctx.lock(...)."
            )
        if target not in self._section.lock_set:
            raise LockingRulesError(
                f"Entity {target} is called inside a critical section that does not lock it; "
                f"locked are {', '.join(self._section.lock_set)}."
            )
        if self._section.is_calling(target):
            raise LockingRulesError(
                f"Entity {target} is called again before the last call has been answered; await that one first."
            )

    def calling(self, target: str, task: DurableTask[Any]) -> None:
        if self._section is not None:
            self._section.calling(target, task)

    def check_signal(self, target: str) -> None:
        """Raise LockingRulesError if an entity may not be signalled now."""
        if self._section is not None and target in self._section.lock_set:
            raise LockingRulesError(f"Entity {target} is locked by this orchestration: call it, do not signal it.")

    def check_sub_orchestration(self) -> None:
        """Raise LockingRulesError if a sub-orchestration may not be started now."""
        if self._section is not None:
            raise LockingRulesError("Sub-orchestrations cannot be started inside a critical section.")
